"""Runs one artifact as its user would, in a fresh process, and writes down what it answers.

ONNX is run without torch, TorchScript without transformers. Runs as a child (see `hfexport.workers`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfexport.errors import ValidationError
from hfexport.validation.arrays import read_arrays, write_arrays
from hfexport.validation.generation import next_inputs
from hfexport.validation.memory import available_bytes

__all__ = ["run"]

Arrays = dict[str, NDArray[Any]]
Artifact = Callable[[Mapping[str, NDArray[Any]]], Arrays]

FRUGAL_SHARE = 4
"""A default session may take several times the weights: it prepacks and reorders them."""


def run(job: Mapping[str, Any]) -> dict[str, Any]:
    """Ask the artifact every probe.

    Args:
        job: `format`, `path`, `input_names`, `output_names`, `probes` (dicts), `threads`, `inputs` (folder with one folder
            of arrays a probe) and `folder`, under which `outputs/{n}` is written for the n-th probe.

    Returns:
        `session`: how the artifact was run; `errors`: probe number -> what the run time said, for probes it refused.

    Raises:
        ValidationError: the artifact does not load, or its inputs or outputs are not the ones it should have.
    """
    load = {"onnx": _load_onnx, "torchscript": _load_torchscript}[job["format"]]
    artifact, session = load(Path(job["path"]), job["input_names"], job["output_names"], int(job["threads"]))
    errors: dict[str, str] = {}
    for number, probe in enumerate(job["probes"]):
        inputs = read_arrays(Path(job["inputs"]) / str(number))
        try:
            outputs = _decode(artifact, inputs, probe["greedy_steps"]) if probe["greedy_steps"] else artifact(inputs)
        except (RuntimeError, ValueError, KeyError, IndexError) as error:
            errors[str(number)] = _one_line(error)
            continue
        write_arrays(Path(job["folder"]) / "outputs" / str(number), outputs)
    return {"session": session, "errors": errors}


def _decode(artifact: Artifact, prompt: Arrays, steps: int) -> Arrays:
    """Decode greedily through the artifact's own cache; the outputs are those of the reference's decoding."""
    inputs: Arrays = dict(prompt)
    tokens: list[NDArray[Any]] = []
    logits: list[NDArray[Any]] = []
    outputs: Arrays = {}
    for step in range(steps):
        outputs = artifact(inputs)
        last = outputs["logits"][:, -1]
        logits.append(last)
        tokens.append(last.argmax(axis=-1))
        if step + 1 < steps:
            inputs = next_inputs(inputs, outputs, tokens[-1])
    cache = {name: array for name, array in outputs.items() if name.startswith("present.")}
    return {"tokens": np.stack(tokens, axis=1), "logits": np.stack(logits, axis=1), **cache}


def _load_onnx(
    path: Path, input_names: Sequence[str], output_names: Sequence[str], threads: int
) -> tuple[Artifact, str]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    size = sum(file.stat().st_size for file in path.parent.iterdir() if file.is_file())
    available = available_bytes()
    session_kind = "default"
    if available is not None and size * FRUGAL_SHARE > available:
        # Weights stay mapped from the file: no copies in other layouts, no arena that keeps what it once took.
        session_kind = "frugal"
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base class but this
        raise ValidationError(
            f"{path.name}: ONNX Runtime cannot load it: {_one_line(error)}",
            remedy="Please report it with config.json.",
        ) from error
    found_inputs = [value.name for value in session.get_inputs()]
    found_outputs = [value.name for value in session.get_outputs()]
    _refuse_other_names(path, "inputs", found_inputs, input_names)
    _refuse_other_names(path, "outputs", found_outputs, output_names)

    def artifact(inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        try:
            answers = session.run(None, {name: np.ascontiguousarray(inputs[name]) for name in found_inputs})
        except Exception as error:  # as above: InvalidArgument, Fail, RuntimeException, ...
            raise RuntimeError(_one_line(error)) from error
        return dict(zip(found_outputs, answers, strict=True))

    return artifact, session_kind


def _load_torchscript(
    path: Path, input_names: Sequence[str], output_names: Sequence[str], threads: int
) -> tuple[Artifact, str]:
    import warnings

    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    extra = {"hfexport.json": ""}
    try:
        module = torch.jit.load(str(path), map_location="cpu", _extra_files=extra)
        description = json.loads(extra["hfexport.json"])
    except (RuntimeError, ValueError) as error:
        raise ValidationError(
            f"{path.name}: torch.jit.load cannot load it with its description: {_one_line(error)}",
            remedy="Please report it with config.json.",
        ) from error
    found_inputs = [value["name"] for value in description["inputs"]]
    found_outputs = [value["name"] for value in description["outputs"]]
    _refuse_other_names(path, "inputs", found_inputs, input_names)
    _refuse_other_names(path, "outputs", found_outputs, output_names)

    def artifact(inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        tensors = [torch.from_numpy(np.array(inputs[name])) for name in found_inputs]
        with torch.inference_mode():
            answers = module(*tensors)
        return {name: answer.numpy() for name, answer in zip(found_outputs, answers, strict=True)}

    return artifact, "default"


def _refuse_other_names(path: Path, what: str, found: Sequence[str], expected: Sequence[str]) -> None:
    if list(found) != list(expected):
        raise ValidationError(
            f"{path.name}: its {what} are {', '.join(found)}; they should be {', '.join(expected)}",
            remedy="Please report it with config.json.",
        )


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:500]
