"""Compare the weights of a variant with those of the plain file: each must be that weight, rounded. Runs as a child process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from hfexport._internal.messages import plain, read
from hfexport.backends.onnx.variants.blocks import BLOCK, NF4, NF4_BLOCK
from hfexport.backends.onnx.variants.graph import Opened, Stored, open_model
from hfexport.validation.mapped_onnx import read_mapped
from hfexport.validation.quality.messages import StoredAnswer, StoredJob

__all__ = ["compare_stored", "run"]

Array = NDArray[Any]

LARGE: Final = 1024
"""Number of elements from which a weight of the plain file has to be in the variant."""

_HALF_STEP: Final = 0.5
_CLIPPED_STEP: Final = 1.0
"""Largest error of a 4-bit value in steps: the range ends at 7 on one side and at -8 on the other."""

_NF4_STEP: Final = max(upper - lower for lower, upper in pairwise(NF4)) / 2

_SLACK: Final = 1.02
_HALF_PRECISION: Final = 2e-3
"""Allowed share of a bound, and relative error of a weight or scale that is stored in float16."""

PART_ELEMENTS: Final = 2**22
"""Number of elements that are compared at a time, so that memory does not grow with a weight."""

_SMALL: Final = 1e-7
"""Absolute rounding error that is always allowed: the smallest float16 numbers."""


@dataclass(frozen=True)
class Decoded:
    """A weight of a variant.

    Attributes:
        shape: its shape.
        part: returns some of its rows in float32, and the largest error that rounding allows for each element.
        turned: it is the transpose of the plain weight.
    """

    shape: tuple[int, ...]
    part: Callable[[slice], tuple[Array, Array]]
    turned: bool = False


def run(values: Mapping[str, Any]) -> dict[str, Any]:
    """Compare the files of one graph. Takes a `StoredJob` and returns a `StoredAnswer`."""
    job = read(values, StoredJob)
    compare = {"onnx": compare_stored, "torchscript": _compare_scripts}[job.format]
    error, worst, missing = compare(Path(job.plain), Path(job.variant))
    return plain(StoredAnswer(error=error, worst=worst, missing=tuple(missing)))


def _compare_scripts(plain: Path, variant: Path) -> tuple[float, str, list[str]]:
    from hfexport.validation.quality.stored_script import compare_scripts

    return compare_scripts(plain, variant)


def compare_stored(plain: Path, variant: Path) -> tuple[float, str, list[str]]:
    """Return the largest relative error of a weight, its name, and the names of weights that are missing."""
    expected, found = (open_model(path, read_mapped(path)) for path in (plain, variant))
    error, worst, seen = 0.0, "", set()
    for name in found.weights:
        for ending, decode in _DECODERS.items():
            source = name.removesuffix(ending)
            if not name.endswith(ending) or source not in expected.weights:
                continue
            seen.add(source)
            try:
                value = _relative_error(_read(expected, source), decode(found, source, name))
            except (LookupError, ValueError, StopIteration):  # a part is missing or has another shape
                value = float("inf")
            if not value <= error:  # also for NaN
                error, worst = value, source
            break
    large = {
        name
        for name, tensor in expected.weights.items()
        if isinstance(tensor, Stored) and tensor.is_float and np.prod(tensor.shape) >= LARGE
    }
    return error, worst, sorted(large - seen)


def _relative_error(expected: Array, decoded: Decoded) -> float:
    """Return the largest error relative to the allowed one; some rows are compared at a time."""
    expected = np.atleast_1d(expected.T if decoded.turned else expected)
    if expected.shape != decoded.shape:
        return float("inf")
    step = max(1, PART_ELEMENTS // max(1, int(np.prod(expected.shape[1:]))))
    largest = 0.0
    for start in range(0, len(expected), step):
        rows = slice(start, start + step)
        values, bound = decoded.part(rows)
        wanted = np.asarray(expected[rows], np.float32)
        allowed = bound * _SLACK + _HALF_PRECISION * np.abs(wanted) + _SMALL
        error = float((np.abs(values - wanted) / allowed).max(initial=0.0))
        if not error <= largest:  # also for NaN
            largest = error
    return largest


def _read(opened: Opened, name: str) -> Array:
    tensor = opened.weights[name]
    assert isinstance(tensor, Stored)
    return tensor.read()


def _same(opened: Opened, source: str, name: str) -> Decoded:
    del source
    stored = np.atleast_1d(_read(opened, name))
    return Decoded(stored.shape, lambda rows: (np.asarray(stored[rows], np.float32), np.zeros((), np.float32)))


def _integers(axis: int) -> Callable[[Opened, str, str], Decoded]:
    def decode(opened: Opened, source: str, name: str) -> Decoded:
        plain = f"{source}_scales_{axis}"
        stored = plain if plain in opened.weights else f"{plain}_column"
        scales = np.asarray(_read(opened, stored), np.float32).reshape(-1)
        integers = _read(opened, name)

        def part(rows: slice) -> tuple[Array, Array]:
            scale = scales[rows, None] if axis == 0 else scales[None, :]
            return _centred(integers[rows]) * scale, _HALF_STEP * np.abs(scale)

        return Decoded(integers.shape, part)

    return decode


def _constant(opened: Opened, source: str, name: str) -> Decoded:
    scales = np.asarray(_read(opened, f"{source}_scales"), np.float32)
    integers = _read(opened, name)

    def part(rows: slice) -> tuple[Array, Array]:
        scale = scales if scales.shape[0] == 1 else scales[rows]
        return _centred(integers[rows]) * scale, _HALF_STEP * np.abs(scale)

    return Decoded(integers.shape, part)


def _centred(integers: Array) -> Array:
    return integers.astype(np.float32) - (128 if integers.dtype == np.uint8 else 0)


def _blocks(ending: str) -> Callable[[Opened, str, str], Decoded]:
    def decode(opened: Opened, source: str, name: str) -> Decoded:
        packed = _read(opened, name)
        scales = _read(opened, f"{source}_block_scales{ending}")
        count, width = _rows_and_width(opened, source, ending, packed)

        def part(rows: slice) -> tuple[Array, Array]:
            some = packed[rows]
            scale = np.asarray(scales[rows], np.float32)[..., None]
            nibbles = np.stack([some & 0xF, some >> 4], axis=-1).reshape(*some.shape[:2], BLOCK)
            values = ((nibbles.astype(np.float32) - 8) * scale).reshape(len(some), -1)[:, :width]
            bound = np.broadcast_to(_CLIPPED_STEP * np.abs(scale), nibbles.shape).reshape(len(some), -1)[:, :width]
            return values, bound

        return Decoded((count, width), part, turned=not ending)

    return decode


def _rows_and_width(opened: Opened, source: str, ending: str, packed: Array) -> tuple[int, int]:
    """Return N and K: K is an attribute of the operator, since the last block may be partial."""
    for graph in _nodes(opened):
        if graph.op_type == "MatMulNBits" and f"{source}_nibbles{ending}" in graph.input:
            attributes = {entry.name: entry.i for entry in graph.attribute}
            return int(attributes["N"]), int(attributes["K"])
    return packed.shape[0], packed.shape[1] * BLOCK


def _nodes(opened: Opened) -> list[onnx.NodeProto]:
    from hfexport.backends.onnx.variants.graph import graphs_of

    return [node for graph in graphs_of(opened.model.graph) for node in graph.node]


def _normal_floats(ending: str) -> Callable[[Opened, str, str], Decoded]:
    def decode(opened: Opened, source: str, name: str) -> Decoded:
        packed = _read(opened, name).reshape(-1)
        largest = _read(opened, f"{source}_nf4_largest{ending}").reshape(-1)
        node = next(node for node in _nodes(opened) if name in node.input)
        attributes = {entry.name: entry.i for entry in node.attribute}
        count, width = int(attributes["N"]), int(attributes["K"])  # K is a multiple of the block

        def part(rows: slice) -> tuple[Array, Array]:
            start, stop, _ = rows.indices(count)
            some = packed[start * width // 2 : stop * width // 2]
            scale = np.asarray(largest[start * width // NF4_BLOCK : stop * width // NF4_BLOCK], np.float32)[:, None]
            codes = np.stack([some >> 4, some & 0xF], axis=-1).reshape(-1, NF4_BLOCK)
            values = (np.array(NF4, np.float32)[codes] * scale).reshape(stop - start, width)
            bound = np.broadcast_to(_NF4_STEP * np.abs(scale), codes.shape).reshape(stop - start, width)
            return values, bound

        return Decoded((count, width), part, turned=not ending)

    return decode


_DECODERS: Final[Mapping[str, Callable[[Opened, str, str], Decoded]]] = {
    "_integers_0": _integers(0),
    "_integers_1": _integers(1),
    "_integers": _constant,
    "_nibbles": _blocks(""),
    "_nibbles_rows": _blocks("_rows"),
    "_nf4": _normal_floats(""),
    "_nf4_rows": _normal_floats("_rows"),
    "": _same,
}
"""Function that decodes a weight, by the ending that its name has after that of the plain weight; the longest first."""
