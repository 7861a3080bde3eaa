"""Read parts of an `onnx_ir` graph: producers, users, constants and static sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

__all__ = ["constant", "fold_constants", "operands", "producer", "size", "sole_user", "uncast", "whole_slice"]

Array = NDArray[Any]

_LARGEST_END = 2**31 - 1
"""End from which a slice reaches the end of any axis."""


def producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """Return the node that computes a value, if it is one of these operators; no-op casts are passed over."""
    node = uncast(value).producer() if value is not None else None
    return node if node is not None and node.op_type in op_types and node.domain == "" else None


def uncast(value: ir.Value) -> ir.Value:
    """Return the value before casts to the dtype that it already has."""
    node = value.producer()
    while node is not None and node.op_type == "Cast":
        (source,) = node.inputs
        if source is None or source.dtype is None or int(source.dtype) != node.attributes.get_int("to"):
            break
        value, node = source, source.producer()
    return value


def sole_user(value: ir.Value) -> ir.Node | None:
    """Return the only node that uses a value; `None` if there are more, or the graph returns it. No-op casts are passed."""
    while True:
        users = list(value.uses())
        if len(users) != 1 or value.is_graph_output():
            return None
        node: ir.Node = users[0].node
        if node.op_type != "Cast" or node.inputs[0] is None or node.inputs[0].dtype is None:
            return node
        if int(node.inputs[0].dtype) != node.attributes.get_int("to"):
            return node
        value = node.outputs[0]


def operands(node: ir.Node) -> list[tuple[ir.Value, ir.Value]]:
    """Return the two inputs of a commutative operator in both orders."""
    first, second = node.inputs
    assert first is not None
    assert second is not None
    return [(first, second), (second, first)]


def size(value: ir.Value | None, axis: int) -> int | None:
    """Return the static size of an axis, also of values that are repeated or joined by broadcasting."""
    if value is None or value.shape is None or not -len(value.shape) <= axis < len(value.shape):
        return None
    found = value.shape[axis]
    if isinstance(found, int):
        return found
    node = value.producer()
    if node is None or node.domain != "":
        return None
    from_end = axis - len(value.shape) if axis >= 0 else axis
    if node.op_type == "Expand":  # the sizes that torch gave `expand`, which has no other effect
        parts = producer(node.inputs[1], "Concat")
        given = (
            constant(parts.inputs[from_end]) if parts is not None and len(parts.inputs) == len(value.shape) else None
        )
        return int(given.reshape(())) if given is not None and given.size == 1 and given >= 1 else None
    if node.op_type not in ("Where", "Add", "Mul", "And", "Or", "Cast", "Identity"):
        return None
    return _broadcast(node, from_end)


def _broadcast(node: ir.Node, axis: int) -> int | None:
    """Return the size of an axis of the result of an element-wise operator, by the sizes of its inputs."""
    sizes = set()
    for given in node.inputs:
        if given is None or given.shape is None:
            return None
        sizes.add(size(given, axis) if len(given.shape) >= -axis else 1)
    known = {one for one in sizes if one not in (1, None)}
    if known:
        return known.pop()
    return 1 if None not in sizes else None


def constant(value: ir.Value | None) -> Array | None:
    """Return the data of a constant, or of a cast or joined one; `None` for weights, computed values and matrices."""
    node = value.producer() if value is not None else None
    if value is None or node is None or node.domain != "":
        return None
    if node.op_type == "Constant":
        tensor = ir.convenience.get_const_tensor(value)
        return None if tensor is None else tensor.numpy()
    if node.op_type == "Concat":
        parts = [constant(one) for one in node.inputs]
        arrays = [part for part in parts if part is not None and part.ndim == 1]
        return np.concatenate(arrays) if len(arrays) == len(parts) else None
    return _reshaped(node) if node.op_type in ("Cast", "Reshape", "Unsqueeze", "Squeeze") else None


def _reshaped(node: ir.Node) -> Array | None:
    """Return the result of a cast or of a change between a number and a list of one number."""
    given = constant(node.inputs[0])
    if given is None or given.ndim > 1:
        return None
    if node.op_type == "Cast":
        dtype = ir.DataType(node.attributes.get_int("to"))
        return given.astype(dtype.numpy()) if dtype in (ir.DataType.INT64, ir.DataType.FLOAT) else None
    dims = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if node.op_type == "Reshape":
        return given.reshape(-1) if dims is not None and dims.tolist() == [-1] else None
    if node.op_type == "Squeeze":
        return given.reshape(()) if given.size == 1 else None
    return given.reshape(-1) if given.ndim == 0 and dims is not None and dims.tolist() in ([0], [-1]) else None


def fold_constants(graph: ir.Graph) -> None:
    """Store the results of operators on small constants, from which shapes are inferred."""
    for node in list(graph):
        if node.op_type == "Constant" or len(node.outputs) != 1 or node.outputs[0].is_graph_output():
            continue
        data = constant(node.outputs[0])
        if data is None:
            continue
        stored = ir.node("Constant", [], attributes={"value": ir.tensor(data)})
        stored.outputs[0].name = f"{node.outputs[0].name}_folded"
        graph.insert_before(node, stored)
        node.outputs[0].replace_all_uses_with(stored.outputs[0])


def whole_slice(node: ir.Node) -> bool:
    """Return whether a slice returns its input: from 0 to the end of each axis, with step 1."""
    if node.op_type != "Slice" or len(node.inputs) < 3:
        return False
    starts, ends = constant(node.inputs[1]), constant(node.inputs[2])
    steps = constant(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else np.ones(1)
    if starts is None or ends is None or steps is None:
        return False
    return bool((starts == 0).all() and (ends >= _LARGEST_END).all() and (steps == 1).all())
