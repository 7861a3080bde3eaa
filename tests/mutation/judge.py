"""Says whether a mutant is wrong, apart from how hfexport validates: more inputs, other sizes, wider values.

A mutant is wrong if, at places that somebody can read, it differs from the artifact by more than three tolerances on any
of the inputs, or fails where the artifact answers.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hfexport.export_config import DecoderConfig, ExportConfig, Seq2SeqGraph, Tolerance, axis_size
from hfexport.export_config.probes import make_inputs

__all__ = ["TOLERANCES", "OnnxAnswers", "Question", "ScriptAnswers", "questions", "wrong_at"]

TOLERANCES = 3
"""Differences of more than this many tolerances make a mutant wrong."""

Arrays = Mapping[str, np.ndarray[Any, Any]]


class Answers(Protocol):
    """Something that answers as an artifact does."""

    def ask(self, inputs: Arrays) -> dict[str, np.ndarray[Any, Any]]: ...


@dataclass(frozen=True)
class Question:
    """Inputs, and by output where its values can be read."""

    inputs: Arrays
    readable: Mapping[str, np.ndarray[Any, Any]]


def questions(config: ExportConfig, number: int, seed: int) -> list[Question]:
    """Draw `number` questions within the limits of a graph, none of the sizes being special."""
    rng = np.random.default_rng(zlib.crc32(f"{config.graph} {seed}".encode()))
    asked = []
    for turn in range(number):
        sizes = _sizes(config, rng, largest=turn % 8 == 7)
        padding = ("none", "right", "left")[int(rng.integers(3))] if _masked(config) else "none"
        drawn = make_inputs(
            config,
            sizes,
            "fp32",
            padding=padding,  # type: ignore[arg-type]
            seed=int(rng.integers(2**31)),
            edge_tokens=turn % 3 == 0,
            last_positions=turn % 5 == 4,
        )
        inputs = {name: _wider(array, rng) for name, array in drawn.items()}
        asked.append(Question(inputs, _readable(config, inputs, sizes)))
    return asked


def _masked(config: ExportConfig) -> bool:
    return any(spec.role in ("attention_mask", "pixel_mask") for spec in config.inputs)


def _wider(array: np.ndarray[Any, Any], rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Real numbers of several magnitudes."""
    return array * np.float32(rng.choice([0.3, 1.0, 1.0, 2.5])) if array.dtype.kind == "f" else array


def _sizes(config: ExportConfig, rng: np.random.Generator, *, largest: bool) -> dict[str, int]:
    batch = int(rng.integers(1, 4))
    if isinstance(config, Seq2SeqGraph):
        last = config.family.max_decoder_positions or 80
        decoder, past = int(rng.integers(1, 9)), int(rng.integers(0, last - 8))
        states = int(rng.integers(1, 40))
        return _seq2seq_sizes(config, batch, states, decoder, past)
    sizes = {}
    for axis in config.free_axes:
        limit = config.limits.get(axis)
        low = limit.minimum if limit is not None else 1
        most = max([70, *(3 * threshold for threshold in config.thresholds.values())])
        high = min(limit.maximum or most, most) if limit is not None else most
        traced = config.trace_sizes[axis]
        if axis in ("height", "width", "num_samples") or traced > most:
            low, high = max(low, traced // 2), max(high if limit is not None and limit.maximum else 0, traced * 2)
        sizes[axis] = high if largest else int(rng.integers(low, high + 1))
    if "batch" in sizes:
        sizes["batch"] = batch
    if "past_sequence" in sizes:
        sizes["past_sequence"] = int(rng.integers(0, 40))
        sizes["sequence"] = min(sizes.get("sequence", 1), int(rng.integers(1, 30)))
    if isinstance(config, DecoderConfig) and config.max_positions and "sequence" in sizes:
        sizes["sequence"] = max(1, min(sizes["sequence"], config.max_positions - sizes.get("past_sequence", 0)))
    return sizes


def _seq2seq_sizes(config: Seq2SeqGraph, batch: int, states: int, decoder: int, past: int) -> dict[str, int]:
    """Sizes of a graph's axes; a cross-attention cache is whole, or empty with the past."""
    length = config.family.encoder_length(states)
    if (limit := config.limits.get("encoder_sequence")) is not None:
        length = max(limit.minimum, min(length, limit.maximum or length))
    fixed = config.family.states_axis
    states = fixed if isinstance(fixed, int) else config.family.states_length(length)
    asked = {
        **{"batch": batch, "encoder_sequence": length, "encoder_states": states, "decoder_sequence": decoder},
        **{"past_decoder_sequence": past, "past_encoder_sequence": states if past else 0},
    }
    named = {axis for spec in (*config.inputs, *config.outputs) for of in spec.axes for axis in str(of).split(" + ")}
    return {axis: size for axis, size in asked.items() if axis in named}


def _readable(config: ExportConfig, inputs: Arrays, sizes: Mapping[str, int]) -> dict[str, np.ndarray[Any, Any]]:
    """By output, which of its (batch, ..., token, ...) places no mask hides; shaped to be broadcast."""
    masks = {spec: inputs[spec.name] for spec in config.inputs if spec.role == "attention_mask"}
    found = {}
    for spec in config.outputs:
        shown = np.ones(1, bool)
        for masked, mask in masks.items():
            for index, axis in enumerate(spec.axes):
                if index and str(masked.axes[-1]).split(" + ")[-1] == str(axis).split(" + ")[-1] and mask.ndim == 2:
                    length = axis_size(axis, sizes)
                    part = mask[:, -length:] if length else mask[:, :0]
                    shape = [1] * 8
                    shape[0], shape[index] = part.shape
                    shown = shown & (part.reshape(shape) != 0)
        found[spec.name] = shown
    return found


def wrong_at(question: Question, found: Arrays, wanted: Arrays, tolerance: Tolerance) -> str:
    """Where an answer differs from the artifact's, readably and by more than three tolerances; empty if nowhere."""
    for name, right in wanted.items():
        answer = found[name]
        if answer.shape != right.shape or answer.dtype != right.dtype:
            return f"{name} has another shape or dtype"
        if right.dtype.kind != "f":
            if not np.array_equal(answer, right):
                return f"{name} differs"
            continue
        shown = question.readable.get(name, np.ones(1, bool))
        shown = shown.reshape([*shown.shape[: right.ndim]]) if shown.ndim > right.ndim else shown
        allowed = TOLERANCES * (tolerance.atol + tolerance.rtol * np.abs(right))
        with np.errstate(invalid="ignore"):
            off = ~(np.abs(answer.astype(np.float64) - right) <= allowed) & np.isfinite(right)
        if (off & np.broadcast_to(shown, right.shape)).any():
            return f"{name} differs"
    return ""


class OnnxAnswers:
    """An ONNX file, or one branch of it, in ONNX Runtime.

    Raises:
        Exception: of ONNX Runtime, which has no base class of its own: the file does not load.
    """

    def __init__(self, path: Path, config: ExportConfig, *, branch: bool) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._names = [spec.name for spec in config.outputs]
        self._branch = branch
        self._goes_on = any(spec.role == "past_key" for spec in config.inputs)

    def ask(self, inputs: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        given = dict(inputs)
        if self._branch:
            types = {"tensor(int64)": np.int64, "tensor(float)": np.float32, "tensor(float16)": np.float16}
            for value in self._session.get_inputs():
                if value.type == "tensor(bool)":
                    given[value.name] = np.array([self._goes_on])
                elif value.name not in given:
                    sizes = [size if isinstance(size, int) else 0 for size in value.shape[1:]]
                    given[value.name] = np.zeros((len(inputs["input_ids"]), *sizes), types[value.type])
        return dict(zip(self._names, self._session.run(self._names, given), strict=True))


class ScriptAnswers:
    """A TorchScript file.

    Raises:
        RuntimeError: it does not load.
    """

    def __init__(self, path: Path, config: ExportConfig) -> None:
        import torch

        self._module = torch.jit.load(str(path), map_location="cpu")
        self._config = config

    def ask(self, inputs: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        import torch

        tensors = [torch.from_numpy(np.array(inputs[spec.name])) for spec in self._config.inputs]
        with torch.inference_mode():
            answers = self._module(*tensors)
        names = [spec.name for spec in self._config.outputs]
        return {name: answer.numpy() for name, answer in zip(names, answers, strict=True)}
