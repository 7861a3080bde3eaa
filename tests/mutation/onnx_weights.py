"""Mutants of the weights that an ONNX artifact stores, in the file itself or in the one beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from mutation.mutant import Mutant
from mutation.weights import changes

__all__ = ["weight_mutants", "write_mutant"]

WEIGHT_ELEMENTS = 16
"""Smaller tensors may be constants of the graph rather than weights."""

Array = np.ndarray[Any, Any]


def weight_mutants(model: onnx.ModelProto, folder: Path) -> Iterator[Mutant]:
    """Mutants of every weight of the outer graph, where all of them are stored."""
    weights = [
        (number, tensor)
        for number, tensor in enumerate(model.graph.initializer)
        if tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16) and np.prod(tensor.dims) >= WEIGHT_ELEMENTS
    ]
    for number, tensor in weights:
        for kind, detail, change in changes(_read(tensor, folder)):
            yield Mutant(kind, f"{tensor.name} {detail}", _changed(number, folder, change), stored=True)
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for number, tensor in weights:
        by_shape.setdefault(tuple(tensor.dims), []).append(number)
    for numbers in by_shape.values():
        for first, second in pairwise(numbers):
            names = " and ".join(model.graph.initializer[number].name for number in (first, second))
            yield Mutant("two weights exchanged", names, _exchanged(first, second), stored=True)


def _read(tensor: onnx.TensorProto, folder: Path) -> Array:
    return numpy_helper.to_array(tensor, str(folder))


def _changed(number: int, folder: Path, change: Callable[[Array], Array]) -> Callable[[onnx.ModelProto], None]:
    """The tensor changed, and stored in the graph's own file; one from beside it where it was, in the mutant's copy."""

    def edit(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[number]
        changed = np.ascontiguousarray(change(_read(tensor, folder)))
        if uses_external_data(tensor):
            info = ExternalDataInfo(tensor)
            assert info.offset is not None
            model.metadata_props.add(key=f"patch:{info.location}:{info.offset}", value=changed.tobytes().hex())
            return
        tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))

    return edit


def _exchanged(first: int, second: int) -> Callable[[onnx.ModelProto], None]:
    def edit(model: onnx.ModelProto) -> None:
        tensors = model.graph.initializer
        tensors[first].name, tensors[second].name = tensors[second].name, tensors[first].name

    return edit


def write_mutant(model: onnx.ModelProto, path: Path) -> None:
    """Write a mutant over the copy of its artifact; changed external data goes into the copied file beside it."""
    kept = []
    for entry in model.metadata_props:
        if not entry.key.startswith("patch:"):
            kept.append((entry.key, entry.value))
            continue
        _, location, offset = entry.key.split(":")
        with (path.parent / location).open("r+b") as data:
            data.seek(int(offset))
            data.write(bytes.fromhex(entry.value))
    del model.metadata_props[:]
    for key, value in kept:
        model.metadata_props.add(key=key, value=value)
    path.write_bytes(model.SerializeToString(deterministic=True))
