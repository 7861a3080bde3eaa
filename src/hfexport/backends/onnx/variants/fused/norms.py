"""Replace root mean square normalisation by `SimplifiedLayerNormalization`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from hfexport.backends.onnx.variants.fused.matching import constant, operands, producer, size, sole_user, uncast
from hfexport.backends.onnx.variants.fused.writing import Writer

__all__ = ["fuse_norms"]


@dataclass(frozen=True)
class _Norm:
    """A normalisation that was found in a graph.

    Attributes:
        given: (…, size), the input.
        scale: (size,), the factor of each element.
        epsilon: number that is added to the mean of squares.
        result: node that returns the scaled input.
    """

    given: ir.Value
    scale: ir.Value
    epsilon: float
    result: ir.Node


def fuse_norms(graph: ir.Graph) -> int:
    """Replace every root mean square normalisation of one graph, without its branches; return their number."""
    found = [norm for node in graph if (norm := _match(node)) is not None]
    for norm in found:
        result = norm.result.outputs[0]
        writer = Writer(graph, norm.result, str(result.name))
        attributes: dict[str, Any] = {"axis": -1, "epsilon": norm.epsilon, "stash_type": 1}
        writer.replace(result, writer.add("SimplifiedLayerNormalization", [norm.given, norm.scale], **attributes))
    return len(found)


def _match(node: ir.Node) -> _Norm | None:
    """Return the normalisation around a reciprocal square root."""
    total = _below_root(node)
    found = _mean_of_squares(total) if total is not None else None
    normed = sole_user(node.outputs[0]) if found is not None else None
    result = sole_user(normed.outputs[0]) if normed is not None and normed.op_type == "Mul" else None
    if found is None or normed is None or result is None or result.op_type != "Mul":
        return None
    given, epsilon = found
    if all(uncast(one) is not uncast(given) for one, _ in operands(normed)):
        return None
    for inner, scale in operands(result):
        one_axis = scale.shape is not None and len(scale.shape) == 1
        if uncast(inner) is normed.outputs[0] and one_axis and size(scale, 0) not in (None, 1):
            return _Norm(given, scale, epsilon, result)
    return None


def _below_root(node: ir.Node) -> ir.Node | None:
    """Return the addition whose reciprocal square root a node computes."""
    if node.op_type == "Reciprocal":
        root = producer(node.inputs[0], "Sqrt")
        return producer(root.inputs[0], "Add") if root is not None else None
    if node.op_type == "Pow":
        exponent = constant(node.inputs[1])
        return producer(node.inputs[0], "Add") if exponent is not None and exponent.tolist() in (-0.5, [-0.5]) else None
    return None


def _mean_of_squares(total: ir.Node) -> tuple[ir.Value, float] | None:
    """Return the input of a mean of squares over the last axis, and the number that is added to it."""
    for mean, epsilon in operands(total):
        node, number = producer(mean, "ReduceMean"), constant(epsilon)
        if node is None or number is None or number.size != 1 or not node.attributes.get_int("keepdims", 1):
            continue
        axes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        square = producer(node.inputs[0], "Pow", "Mul")
        if axes is None or axes.tolist() != [-1] or square is None or square.inputs[0] is None:
            continue
        exponent = constant(square.inputs[1])
        if (square.op_type == "Mul" and square.inputs[0] is square.inputs[1]) or (
            square.op_type == "Pow" and exponent is not None and exponent.tolist() in (2.0, [2.0])
        ):
            return square.inputs[0], float(number.reshape(()))
    return None
