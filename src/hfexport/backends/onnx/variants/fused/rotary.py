"""Replace the rotation of queries and keys by their positions by `RotaryEmbedding`.

The operator takes tables of cosines and sines by position. They are those that the graph computes for the positions of a
call, one row for each token, so that no position is too large and scaled frequencies stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from hfexport.backends.onnx.variants.blocks import MICROSOFT
from hfexport.backends.onnx.variants.fused.matching import constant, operands, producer, size, sole_user
from hfexport.backends.onnx.variants.fused.writing import SWAPPED, Writer

__all__ = ["fuse_rotations"]


@dataclass(frozen=True)
class _Rotation:
    """A rotation that was found in a graph.

    Attributes:
        given: (batch, heads, sequence, head size).
        cosines: (batch, sequence, head size), with two equal halves.
        sines: as `cosines`.
        half: half of the head size.
        result: node that returns the rotated input.
    """

    given: ir.Value
    cosines: ir.Value
    sines: ir.Value
    half: int
    result: ir.Node


@dataclass(frozen=True)
class _Tables:
    """Positions (batch, sequence) and tables (batch x sequence, half of the head size)."""

    positions: ir.Value
    cosines: ir.Value
    sines: ir.Value


def fuse_rotations(graph: ir.Graph) -> int:
    """Replace every rotation of one graph, without its branches; return their number."""
    found = [match for node in graph if node.op_type == "Concat" and (match := _match(node)) is not None]
    tables: dict[tuple[int, int], _Tables] = {}
    for match in found:
        writer = Writer(graph, match.result, str(match.result.outputs[0].name))
        key = id(match.cosines), id(match.sines)
        if key not in tables:
            tables[key] = _write_tables(writer, match)
        _write(writer, match, tables[key])
    return len(found)


def _match(turned: ir.Node) -> _Rotation | None:
    """Return the rotation around the concatenation of the negated second half and the first half of its input."""
    if len(turned.inputs) != 2 or turned.attributes.get_int("axis", 0) not in (-1, 3):
        return None
    negated = producer(turned.inputs[0], "Neg")
    second = producer(negated.inputs[0], "Slice") if negated is not None else None
    first, product = producer(turned.inputs[1], "Slice"), sole_user(turned.outputs[0])
    if first is None or second is None or product is None or product.op_type != "Mul":
        return None
    given, width = first.inputs[0], size(first.inputs[0], 3)
    if given is None or second.inputs[0] is not given or not width or width % 2:
        return None
    half, result = width // 2, sole_user(product.outputs[0])
    if _bounds(first) != (0, half) or _bounds(second) != (half, width) or result is None or result.op_type != "Add":
        return None
    sines = next((_table(factor, "Sin") for one, factor in operands(product) if one is turned.outputs[0]), None)
    cosines = _cosines(result, product, given)
    if sines is None or cosines is None or any(size(one, -1) != width for one in (sines, cosines)):
        return None
    return _Rotation(given, cosines, sines, half, result)


def _cosines(result: ir.Node, product: ir.Node, given: ir.Value) -> ir.Value | None:
    """Return the table that the input itself is multiplied with."""
    for one, other in operands(result):
        kept = producer(other, "Mul")
        if one is product.outputs[0] and kept is not None:
            return next((_table(factor, "Cos") for inner, factor in operands(kept) if inner is given), None)
    return None


def _bounds(node: ir.Node) -> tuple[int, int] | None:
    """Return start and end of a slice of the last of four axes with step 1; the end is at most the axis's size."""
    numbers = [constant(value) for value in node.inputs[1:5]]
    if len(numbers) < 3 or any(number is None or number.size != 1 for number in numbers):
        return None
    start, end, axis, *step = [int(number.reshape(())) for number in numbers if number is not None]
    if axis not in (-1, 3) or step not in ([], [1]):
        return None
    return start, min(end, size(node.inputs[0], 3) or end)


def _table(factor: ir.Value, function: str) -> ir.Value | None:
    """Return (batch, sequence, head size) of a factor (batch, 1, sequence, head size) if its two halves are equal."""
    node = producer(factor, "Unsqueeze")
    axes = constant(node.inputs[1]) if node is not None else None
    if node is None or axes is None or axes.reshape(-1).tolist() != [1] or node.inputs[0] is None:
        return None
    table = node.inputs[0]
    if table.shape is None or len(table.shape) != 3 or size(table, 0) == 1:
        return None
    inner: ir.Value | None = table
    while (scaled := producer(inner, "Mul")) is not None:
        inner = next(
            (one for one, other in operands(scaled) if (by := constant(other)) is not None and by.size == 1), None
        )
    angles = producer(inner, function)
    joined = producer(angles.inputs[0], "Concat") if angles is not None else None
    if joined is None or len(joined.inputs) != 2 or joined.inputs[0] is not joined.inputs[1]:
        return None
    return table if joined.attributes.get_int("axis", 0) in (-1, 2) else None


def _write_tables(writer: Writer, match: _Rotation) -> _Tables:
    shape = writer.add("Shape", [match.cosines], start=0, end=2)
    number = writer.add("ReduceProd", [shape], keepdims=0)
    zero, one = (writer.add("Constant", [], value=ir.tensor(np.array(n, np.int64))) for n in (0, 1))
    positions = writer.add("Reshape", [writer.add("Range", [zero, number, one]), shape])
    halves = [
        writer.add("Slice", [table, writer.numbers(0), writer.numbers(match.half), writer.numbers(2)])
        for table in (match.cosines, match.sines)
    ]
    cosines, sines = (writer.reshape(half, -1, match.half) for half in halves)
    return _Tables(positions, cosines, sines)


def _write(writer: Writer, match: _Rotation, tables: _Tables) -> None:
    """Insert the operator; a transposed input is rotated before its transposition, which attention may not need."""
    heads, width = size(match.given, 1), 2 * match.half
    flat = writer.flat(match.given, heads, width) if heads is not None else None
    inputs = [match.given if flat is None else flat, tables.positions, tables.cosines, tables.sines]
    rotated = writer.add("RotaryEmbedding", inputs, domain=MICROSOFT, interleaved=0)
    if flat is not None and heads is not None:
        rotated.shape, rotated.type = ir.Shape([None, None, heads * width]), match.given.type
        rotated = writer.transpose(writer.reshape(rotated, 0, 0, heads, width), *SWAPPED)
    writer.replace(match.result.outputs[0], rotated)
