"""Load and run artifacts as users do: ONNX with ONNX Runtime only, TorchScript with torch only.

Each session imports only what its format needs; none imports transformers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hfexport._internal.malloc import return_freed_blocks
from hfexport.errors import ValidationError
from hfexport.export_config.arrays import Arrays
from hfexport.runtime import DESCRIPTION_FILE
from hfexport.validation.mapped_onnx import read_mapped
from hfexport.validation.mapped_script import load_mapped
from hfexport.validation.memory import available_bytes

__all__ = ["BranchSession", "Expected", "OnnxSession", "Refusal", "Session", "TorchScriptSession", "open_session"]

ROOM_FOR_COPIES = 3
"""Memory of a default ONNX Runtime session as a multiple of the weights, which it reads, folds and repacks."""

MAPPED_FROM_BYTES = 2**30
"""Size of the weights above which an artifact is run frugally, however much memory there is."""

_ONNX_TYPES = {
    "int64": "tensor(int64)",
    "bool": "tensor(bool)",
    "float32": "tensor(float)",
    "float16": "tensor(float16)",
}


class Refusal(Exception):
    """The artifact rejected a probe; the text is the runtime's error."""


class Session(Protocol):
    """A loaded artifact. `kind` is `default`, or `frugal` if memory is short."""

    kind: str

    def ask(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run the artifact and return its outputs by name, in the artifact's order.

        Raises:
            Refusal: the artifact rejects these inputs, or fails on them.
        """
        ...

    def prepared(self, inputs: Mapping[str, NDArray[Any]]) -> Callable[[], object]:
        """Return a function that runs the artifact on these inputs, which are converted now; it may raise `Refusal`."""
        ...


class Expected:
    """Expected interface of an artifact.

    Args:
        path: path of the artifact, for messages.
        inputs: (name, dtype) in order; dtype is numpy's name.
        outputs: names in order.
    """

    def __init__(self, path: Path, inputs: Sequence[tuple[str, str]], outputs: Sequence[str]) -> None:
        self.path = path
        self.inputs = [(name, dtype) for name, dtype in inputs]
        self.outputs = list(outputs)

    def check(self, inputs: Sequence[tuple[str, str]], outputs: Sequence[str]) -> None:
        """Compare the interface of an artifact with this one.

        Raises:
            ValidationError: names, their order or the dtypes of inputs differ.
        """
        self._check_names("input", [name for name, _ in inputs], [name for name, _ in self.inputs])
        self._check_names("output", list(outputs), self.outputs)
        wrong = [
            f"{name} is {found}, should be {wanted}"
            for (name, found), (_, wanted) in zip(inputs, self.inputs, strict=True)
            if found != wanted
        ]
        if wrong:
            raise ValidationError(f"{self.path.name}: inputs have wrong types: {'; '.join(wrong)}")

    def _check_names(self, what: str, found: list[str], wanted: list[str]) -> None:
        if found == wanted:
            return
        missing = [name for name in wanted if name not in found]
        extra = [name for name in found if name not in wanted]
        parts = [f"missing: {', '.join(missing)}"] if missing else []
        parts += [f"unknown: {', '.join(extra)}"] if extra else []
        parts = parts or [f"found in the order {', '.join(found)}"]
        raise ValidationError(f"{self.path.name}: {what}s should be {', '.join(wanted)}; {'; '.join(parts)}")


def open_session(format_name: str, expected: Expected, weight_bytes: int, threads: int) -> Session:
    """Load an artifact and check its interface.

    Raises:
        ValidationError: it does not load, or has another interface.
    """
    if format_name == "onnx":
        return OnnxSession(expected, weight_bytes, threads)
    return TorchScriptSession(expected, weight_bytes, threads)


def _session_kind(weight_bytes: int) -> str:
    """Return `frugal` if the weights are large or memory has no room for copies of them, else `default`."""
    available = available_bytes()
    short = available is not None and weight_bytes * ROOM_FOR_COPIES >= available
    return "frugal" if short or weight_bytes > MAPPED_FROM_BYTES else "default"


class OnnxSession:
    """An ONNX artifact in ONNX Runtime on CPU.

    Settings are the defaults, as in production, if memory has room for the copies of weights that they need. Otherwise
    the weights stay mapped from the file: no graph optimisation, no repacking, no memory arena. Nodes then run in the
    order of their priority: ONNX Runtime runs float16 on CPU by casting weights to float32, and its default order casts
    all weights of a graph before it uses the first.
    """

    def __init__(self, expected: Expected, weight_bytes: int, threads: int) -> None:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        # Its exceptions have no common base class; there is one class per status code.
        codes = [value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)]
        self._errors: tuple[type[Exception], ...] = (*codes, RuntimeError, ValueError, TypeError)
        self.kind = _session_kind(weight_bytes)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        if self.kind == "frugal":
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.add_session_config_entry("session.disable_prepacking", "1")
            options.enable_cpu_mem_arena = False
            options.enable_mem_pattern = False
            options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
            return_freed_blocks()
        model: str | bytes = str(expected.path)
        if self.kind == "frugal":
            # From the path, ONNX Runtime copies weights that are in the graph's file.
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", str(expected.path.parent)
            )
            model = read_mapped(expected.path).SerializeToString()
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except self._errors as error:
            raise ValidationError(f"{expected.path.name}: ONNX Runtime cannot load it: {_one_line(error)}") from error
        types = {onnx_type: dtype for dtype, onnx_type in _ONNX_TYPES.items()}
        declared = [(value.name, types.get(value.type, value.type)) for value in self._session.get_inputs()]
        self._outputs = [value.name for value in self._session.get_outputs()]
        expected.check(declared, self._outputs)
        self.shapes = {
            value.name: (value.shape, dtype)
            for value, (_, dtype) in zip(self._session.get_inputs(), declared, strict=True)
        }
        """Shape (names for free axes) and dtype of each input."""

    def ask(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        return dict(zip(self._outputs, self.prepared(inputs)(), strict=True))

    def prepared(self, inputs: Mapping[str, NDArray[Any]]) -> Callable[[], list[Any]]:
        given = {name: np.ascontiguousarray(array) for name, array in inputs.items()}

        def run() -> list[Any]:
            try:
                return list(self._session.run(None, given))
            except self._errors as error:
                raise Refusal(_one_line(error)) from error

        return run


class BranchSession:
    """One branch of a merged decoder, with the inputs and outputs of the graph that it replaces.

    Inputs of the other branch are NaN with the smallest sizes that the file allows, as consumers pass them.

    Args:
        session: session of the merged decoder.
        inputs: names of the branch's inputs.
        outputs: names of the branch's outputs, in order.
    """

    def __init__(self, session: OnnxSession, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        self.kind = session.kind
        self._session = session
        self._outputs = list(outputs)
        self._goes_on = any(name.startswith("past_key_values.") for name in inputs)

    def ask(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        answers = self._session.ask(self._whole(inputs))
        return {name: answers[name] for name in self._outputs}

    def prepared(self, inputs: Mapping[str, NDArray[Any]]) -> Callable[[], object]:
        return self._session.prepared(self._whole(inputs))

    def _whole(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Return the inputs of the file, those of the other branch included."""
        batch = len(inputs["input_ids"])
        whole: Arrays = {}
        for name, (shape, dtype) in self._session.shapes.items():
            if dtype == "bool":
                whole[name] = np.array([self._goes_on])
            elif name in inputs:
                whole[name] = inputs[name]
            else:
                sizes = [size if isinstance(size, int) else 0 for size in shape[1:]]
                whole[name] = np.full((batch, *sizes), np.nan, dtype)
        return whole


class TorchScriptSession:
    """A TorchScript artifact, called with inputs in the order that it describes.

    It is loaded by `torch.jit.load`, which copies all tensors, if memory has room for them. Otherwise its tensors are
    mapped from the file (see `hfexport.validation.mapped_script`).
    """

    def __init__(self, expected: Expected, weight_bytes: int, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        # Errors in traced or scripted code are torch.jit.Error, which is not a RuntimeError.
        self._errors: tuple[type[Exception], ...] = (
            torch.jit.Error,
            RuntimeError,
            ValueError,
            TypeError,
            LookupError,
            ArithmeticError,
        )
        self.kind = _session_kind(weight_bytes)
        extra: dict[str, str | bytes] = {DESCRIPTION_FILE: ""}
        try:
            if self.kind == "frugal":
                self.module, extra[DESCRIPTION_FILE] = load_mapped(expected.path, DESCRIPTION_FILE)
            else:
                self.module = torch.jit.load(str(expected.path), map_location="cpu", _extra_files=extra)
        except (*self._errors, OSError) as error:
            raise ValidationError(f"{expected.path.name}: torch.jit.load cannot load it: {_one_line(error)}") from error
        try:
            description = json.loads(extra[DESCRIPTION_FILE])
            self._inputs = [(str(entry["name"]), str(entry["dtype"])) for entry in description["inputs"]]
            self._outputs = [str(entry["name"]) for entry in description["outputs"]]
        except (ValueError, LookupError, TypeError) as error:
            raise ValidationError(
                f"{expected.path.name}: its extra file {DESCRIPTION_FILE} does not describe inputs and outputs"
            ) from error
        expected.check(self._inputs, self._outputs)

    def prepared(self, inputs: Mapping[str, NDArray[Any]]) -> Callable[[], Any]:
        import torch

        # Copies, since torch warns about inputs that are mapped read-only.
        tensors = [torch.from_numpy(np.array(inputs[name], dtype)) for name, dtype in self._inputs]

        def run() -> Any:
            try:
                with torch.inference_mode():
                    return self.module(*tensors)
            except self._errors as error:
                raise Refusal(_one_line(error)) from error

        return run

    def ask(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        import torch

        answers = self.prepared(inputs)()
        if not isinstance(answers, tuple) or not all(isinstance(answer, torch.Tensor) for answer in answers):
            raise Refusal(f"it gives {type(answers).__name__}, not a tuple of tensors")
        if len(answers) != len(self._outputs):
            raise Refusal(f"it gives {len(answers)} outputs, and describes {len(self._outputs)}")
        return {name: answer.numpy() for name, answer in zip(self._outputs, answers, strict=True)}


def _one_line(error: BaseException) -> str:
    """Return an error as one short line; TorchScript puts the cause last, below the traced code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:500]
