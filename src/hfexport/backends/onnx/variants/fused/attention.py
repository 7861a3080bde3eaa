"""Replace products, softmax and their mask by `MultiHeadAttention`, with the mask as its additive attention bias."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir

from hfexport.backends.onnx.variants.blocks import MICROSOFT
from hfexport.backends.onnx.variants.fused.matching import (
    constant,
    operands,
    producer,
    size,
    sole_user,
    uncast,
    whole_slice,
)
from hfexport.backends.onnx.variants.fused.writing import SWAPPED, Writer, permutation

__all__ = ["fuse_attention"]

_MASKED = -3.4028234663852886e38
"""Value of masked scores: the lowest float32, as in transformers."""


@dataclass(frozen=True)
class _Scores:
    """Scaled scores of queries and keys, before softmax.

    Attributes:
        query: (batch, heads, queries, head size).
        key: (batch, heads or 1, keys, head size).
        scale: factor of the product.
        biases: values that are added to the scaled product.
    """

    query: ir.Value
    key: ir.Value
    scale: float = 1.0
    biases: tuple[ir.Value, ...] = ()


@dataclass(frozen=True)
class _Attention:
    """An attention that was found in a graph.

    Attributes:
        scores: its scores.
        value: (batch, heads or 1, keys, head size).
        heads: number of heads of the query.
        width: head size.
        result: node that returns (batch, queries, heads, head size).
    """

    scores: _Scores
    value: ir.Value
    heads: int
    width: int
    result: ir.Node


def fuse_attention(graph: ir.Graph) -> int:
    """Replace every attention of one graph, without its branches; return their number."""
    found = [match for node in graph if node.op_type == "Softmax" and (match := _match(node)) is not None]
    biases: dict[tuple[Any, ...], ir.Value | None] = {}
    writers = [Writer(graph, match.result, str(match.result.outputs[0].name)) for match in found]
    return sum(_Fusion(match, biases, writer).write() for match, writer in zip(found, writers, strict=True))


def _match(softmax: ir.Node) -> _Attention | None:
    """Return the attention around a softmax."""
    scores, product = _scores(softmax.inputs[0]), sole_user(softmax.outputs[0])
    if scores is None or product is None or softmax.attributes.get_int("axis", -1) not in (-1, 3):
        return None
    if product.op_type != "MatMul" or product.inputs[0] is None or uncast(product.inputs[0]) is not softmax.outputs[0]:
        return None
    value, result = product.inputs[1], sole_user(product.outputs[0])
    if value is None or result is None or permutation(result) != SWAPPED:
        return None
    sizes = _sizes(scores, value)
    return _Attention(scores, value, *sizes, result) if sizes is not None else None


def _sizes(scores: _Scores, value: ir.Value) -> tuple[int, int] | None:
    """Return the number of heads and the head size, if queries, keys and values have the same."""
    heads, width = size(scores.query, 1), size(scores.query, 3)
    batches = {size(one, 0) for one in (scores.query, scores.key, value)}
    if heads is None or width is None or (len(batches) > 1 and 1 in batches):  # one of them is repeated over the batch
        return None
    stored = {_declared(one, 1, heads) for one in (scores.key, value)}
    fits = stored in ({1}, {heads}) and all(_declared(one, 3, width) == width for one in (scores.key, value))
    return (heads, width) if fits else None


def _declared(value: ir.Value, axis: int, expected: int) -> int | None:
    """Return the static size of an axis; for a cache whose input has a free axis, the size that the query requires."""
    if uncast(value).is_graph_input() and size(value, axis) is None:
        return expected
    return size(value, axis)


def _scores(value: ir.Value | None) -> _Scores | None:
    """Return the product below scales and additions; a scale must be applied before anything is added."""
    node = producer(value, "MatMul", "Mul", "Div", "Add")
    if node is None or sole_user(node.outputs[0]) is None:
        return None
    if node.op_type == "MatMul":
        return _product(node)
    for inner, other in operands(node)[: 1 if node.op_type == "Div" else 2]:
        found = _scores(inner)
        if found is not None:
            return _added(found, other) if node.op_type == "Add" else _scaled(found, node.op_type, other)
    return None


def _product(node: ir.Node) -> _Scores | None:
    query, turned = node.inputs
    swap = producer(turned, "Transpose")
    if query is None or swap is None or permutation(swap) != (0, 1, 3, 2) or swap.inputs[0] is None:
        return None
    return _Scores(query, swap.inputs[0])


def _added(scores: _Scores, bias: ir.Value) -> _Scores:
    return replace(scores, biases=(*scores.biases, bias))


def _scaled(scores: _Scores, op_type: str, factor: ir.Value) -> _Scores | None:
    number = constant(factor)
    if number is None or number.size != 1 or scores.biases:
        return None
    by = float(number.reshape(()))
    return replace(scores, scale=scores.scale * by if op_type == "Mul" else scores.scale / by)


@dataclass(frozen=True)
class _Fusion:
    """Write one attention as an operator.

    Attributes:
        match: the attention.
        biases: attention biases that were written before, by their parts.
        writer: inserts nodes before the attention's result.
    """

    match: _Attention
    biases: dict[tuple[Any, ...], ir.Value | None]
    writer: Writer

    def write(self) -> bool:
        """Insert the operator and let all users of the result read it; return false if it cannot be expressed."""
        match = self.match
        key, value, groups = self._unrepeated()
        bias = self._bias(groups)
        if bias is None and match.scores.biases and groups > 1:
            key, value, groups = match.scores.key, match.value, 1
            bias = self._bias(1)
        if (bias is None and match.scores.biases) or _declared(key, 1, match.heads) != match.heads // groups:
            return False
        stored_heads = match.heads // groups
        flat = [self.writer.flat(one, stored_heads, match.width) for one in (key, value)]
        if flat[0] is not None and flat[1] is not None:
            key, value = flat[0], flat[1]
        attended = self.writer.add(
            "MultiHeadAttention",
            [self._query(groups), key, value, None, None, bias],
            num_heads=stored_heads,
            scale=match.scores.scale,
            mask_filter_value=_MASKED,
            domain=MICROSOFT,
        )
        self._finish(attended, groups)
        return True

    def _unrepeated(self) -> tuple[ir.Value, ir.Value, int]:
        """Return keys and values with the heads that are stored, and the number of query heads for each."""
        match = self.match
        stored = [_source(one, match.heads) for one in (match.scores.key, match.value)]
        heads = {_declared(one, 1, match.heads) for one in stored}
        if len(heads) != 1 or None in heads:
            return match.scores.key, match.value, 1
        return stored[0], stored[1], match.heads // int(heads.pop() or match.heads)

    def _query(self, groups: int) -> ir.Value:
        """Return the query as (batch, queries x groups, stored heads x head size)."""
        match, query = self.match, self.match.scores.query
        heads, width = match.heads, match.width
        flat = self.writer.flat(query, heads, width)
        if groups == 1:
            return (
                flat
                if flat is not None
                else self.writer.reshape(self.writer.transpose(query, *SWAPPED), 0, 0, heads * width)
            )
        stored = heads // groups
        if flat is not None:
            split = self.writer.transpose(self.writer.reshape(flat, 0, 0, stored, groups, width), 0, 1, 3, 2, 4)
        else:
            split = self.writer.transpose(self.writer.reshape(query, 0, stored, groups, -1, width), 0, 3, 2, 1, 4)
        return self.writer.reshape(split, 0, -1, stored * width)

    def _bias(self, groups: int) -> ir.Value | None:
        """Return the sum of the biases as (batch or 1, heads or 1, queries x groups, keys)."""
        biases = self.match.scores.biases
        key = (groups, *(id(bias) for bias in biases))
        if biases and key not in self.biases:
            self.biases[key] = self._new_bias(groups)
        return self.biases.get(key)

    def _new_bias(self, groups: int) -> ir.Value | None:
        biases = self.match.scores.biases
        ranks = [len(bias.shape) if bias.shape is not None else 0 for bias in biases]
        if not all(ranks) or max(ranks) > 4 or any(bias.dtype != ir.DataType.FLOAT for bias in biases):
            return None
        rows = {size(bias, -2) if rank > 1 else 1 for bias, rank in zip(biases, ranks, strict=True)}
        heads = {size(bias, -3) if rank > 2 else 1 for bias, rank in zip(biases, ranks, strict=True)}
        if all(size(bias, -1) == 1 for bias in biases) or not heads <= {1, self.match.heads}:
            return None
        if groups > 1 and heads != {1}:
            return None
        total = biases[0]
        for bias in biases[1:]:
            total = self.writer.add("Add", [total, bias])
        if max(ranks) < 4:
            total = self.writer.add("Unsqueeze", [total, self.writer.numbers(*range(4 - max(ranks)))])
        if rows == {1}:
            query = self.match.scores.query
            queries = self.writer.add("Shape", [query], start=2, end=3)
            shape = self.writer.add("Concat", [self.writer.numbers(1, 1), queries, self.writer.numbers(1)], axis=0)
            total = self.writer.add("Expand", [total, shape])
        return total if groups == 1 else self._repeated_rows(total, groups)

    def _repeated_rows(self, bias: ir.Value, groups: int) -> ir.Value:
        """Repeat each row of a bias (batch, 1, queries, keys) for each query head of a group."""
        split = self.writer.add("Unsqueeze", [bias, self.writer.numbers(3)])
        repeated = self.writer.add("Expand", [split, self.writer.numbers(1, 1, 1, groups, 1)])
        keys = self.writer.add("Shape", [bias], start=3, end=4)
        shape = self.writer.add("Concat", [self.writer.numbers(0, 0, -1), keys], axis=0)
        return self.writer.add("Reshape", [repeated, shape])

    def _finish(self, attended: ir.Value, groups: int) -> None:
        """Give (batch, queries x groups, …) the shape of the result, or of the reshaped result if only that is used."""
        match = self.match
        heads, width = match.heads, match.width
        if groups > 1:
            split = self.writer.reshape(attended, 0, -1, groups, heads // groups, width)
            attended = self.writer.transpose(split, 0, 1, 3, 2, 4)
        result = match.result.outputs[0]
        user = sole_user(result)
        merged = constant(user.inputs[1]) if user is not None and user.op_type == "Reshape" else None
        if (
            user is not None
            and merged is not None
            and merged.tolist() in ([0, 0, heads * width], [0, -1, heads * width])
        ):
            result = user.outputs[0]
            final = attended if groups == 1 else self.writer.reshape(attended, 0, 0, heads * width)
        else:
            final = self.writer.reshape(attended, 0, 0, heads, width)
        self.writer.replace(result, final)


def _source(value: ir.Value, heads: int) -> ir.Value:
    """Return keys or values (batch, stored heads, keys, head size) before each head was repeated."""
    merge = producer(value, "Reshape")
    repeat = producer(merge.inputs[0], "Expand") if merge is not None else None
    if merge is None or repeat is None:
        return value
    split = _before_slices(repeat.inputs[0])
    node = producer(split, "Unsqueeze")
    axes = constant(node.inputs[1]) if node is not None else None
    if node is None or axes is None or axes.reshape(-1).tolist() != [2]:
        return value
    source = _before_slices(node.inputs[0])
    stored, width = size(source, 1), size(source, 3)
    if source is None or not stored or heads % stored or width is None:
        return value
    parts = producer(repeat.inputs[1], "Concat")
    sizes = [constant(part) for part in parts.inputs] if parts is not None else []
    expected = {1: stored, 2: heads // stored, 4: width}
    given = {axis: None if array is None else array.tolist() for axis, array in enumerate(sizes)}
    if len(sizes) != 5 or any(given[axis] != [number] for axis, number in expected.items()):
        return value
    shape = constant(merge.inputs[1])
    return source if shape is not None and shape.tolist() == [0, heads, -1, width] else value


def _before_slices(value: ir.Value | None) -> ir.Value | None:
    """Return the value before slices that return all of it."""
    while value is not None and (node := producer(value, "Slice")) is not None and whole_slice(node):
        value = node.inputs[0]
    return value
