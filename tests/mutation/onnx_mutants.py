"""Mutants of ONNX graphs: operators, operands, constants and axes, in the graph and its subgraphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from mutation.mutant import Mutant
from mutation.onnx_interface import interface_mutants
from mutation.onnx_weights import weight_mutants

__all__ = ["onnx_mutants"]

SWAPS: Final[Mapping[str, str]] = {
    **{"Add": "Sub", "Sub": "Add", "Mul": "Div", "Div": "Mul", "And": "Or", "Or": "And", "Max": "Min", "Min": "Max"},
    **{"Tanh": "Sigmoid", "Sigmoid": "Tanh", "Relu": "Abs", "Erf": "Tanh", "Sqrt": "Abs", "Sin": "Cos", "Cos": "Sin"},
    **{"Softmax": "LogSoftmax", "ReduceMean": "ReduceSum", "ReduceMax": "ReduceMin", "Neg": "Abs", "Floor": "Ceil"},
    **{"Exp": "Softplus", "Reciprocal": "Neg", "Not": "Identity", "Equal": "GreaterOrEqual", "Abs": "Neg"},
    **{"GlobalAveragePool": "GlobalMaxPool"},
}
BYPASSED: Final = frozenset(
    (
        *("Tanh", "Sigmoid", "Relu", "Erf", "Gelu", "Sqrt", "Sin", "Cos", "Softmax", "Neg", "Exp", "Reciprocal"),
        *("LayerNormalization", "BatchNormalization", "RMSNormalization", "InstanceNormalization", "Clip", "Not"),
        *("Sub", "Div", "Pow", "Slice", "Expand", "Log", "Abs"),
    )
)
JOINING: Final = frozenset(("Add", "Mul", "Or", "And", "Max", "Min"))
EXCHANGED: Final = frozenset(
    ("Sub", "Div", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Pow", "Concat", "MatMul", "Where")
)
STRICT: Final[Mapping[str, str]] = {
    **{"LessOrEqual": "Less", "Less": "LessOrEqual", "GreaterOrEqual": "Greater", "Greater": "GreaterOrEqual"},
}
EPSILON_AT_MOST: Final = 1e-4

Node = tuple[int, int]
"""A node by the number of its graph, the outer one first, and its own number in it."""


def onnx_mutants(model: onnx.ModelProto, config: Any, folder: Any) -> Iterator[Mutant]:
    """All mutants of a graph.

    Args:
        model: without its external data.
        config: its export config, which says what inputs mean.
        folder: that external data lies in.
    """
    for g, graph in enumerate(graphs_of(model.graph)):
        for n, node in enumerate(graph.node):
            place = f"{g}/{node.op_type}:{node.output[0]}"
            yield from _operator_mutants((g, n), node, place)
            yield from _constant_mutants((g, n), node, place)
            yield from _axis_mutants((g, n), node, place)
    yield from interface_mutants(model, config)
    yield from weight_mutants(model, folder)


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and all graphs inside it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from graphs_of(attribute.g)


def _at(model: onnx.ModelProto, at: Node) -> onnx.NodeProto:
    return list(graphs_of(model.graph))[at[0]].node[at[1]]


def _change(at: Node, change: Callable[[onnx.NodeProto], None]) -> Callable[[onnx.ModelProto], None]:
    return lambda model: change(_at(model, at))


def _operator_mutants(at: Node, node: onnx.NodeProto, place: str) -> Iterator[Mutant]:
    op = node.op_type
    if op in SWAPS:
        yield Mutant("operator swapped", f"{place} -> {SWAPS[op]}", _change(at, _renamed(SWAPS[op])))
    if op == "Gelu":
        yield Mutant("operator swapped", f"{place} -> the other Gelu", _change(at, _other_gelu))
    if op in EXCHANGED and len(node.input) > 1:
        first, second = (1, 2) if op == "Where" else (0, 1)
        if node.input[first] != node.input[second]:
            yield Mutant("operands exchanged", f"{place} exchanged", _change(at, _exchanged(first, second)))
    if op in STRICT:
        yield Mutant("comparison made strict", f"{place} -> {STRICT[op]}", _change(at, _renamed(STRICT[op])))
    if op in STRICT or op == "Equal":
        for value in (True, False):
            yield Mutant("mask or position logic", f"{place} always {value}", _always(at, value))
    through = [1, 2] if op == "Where" else [0, 1] if op in JOINING else [0] if op in BYPASSED else []
    for number in through:
        text = f"{place} bypassed by input {number}"
        yield Mutant("operator bypassed", text, _change(at, _bypassed(number)))


def _renamed(op: str) -> Callable[[onnx.NodeProto], None]:
    def change(node: onnx.NodeProto) -> None:
        node.op_type = op

    return change


def _other_gelu(node: onnx.NodeProto) -> None:
    known = [attribute.s for attribute in node.attribute if attribute.name == "approximate"]
    del node.attribute[:]
    node.attribute.append(helper.make_attribute("approximate", "none" if known == [b"tanh"] else "tanh"))


def _bypassed(kept: int) -> Callable[[onnx.NodeProto], None]:
    def change(node: onnx.NodeProto) -> None:
        inputs, outputs = [node.input[kept]], [node.output[0]]
        node.CopyFrom(helper.make_node("Identity", inputs, outputs))

    return change


def _exchanged(first: int, second: int) -> Callable[[onnx.NodeProto], None]:
    def change(node: onnx.NodeProto) -> None:
        node.input[first], node.input[second] = node.input[second], node.input[first]

    return change


def _always(at: Node, value: bool) -> Callable[[onnx.ModelProto], None]:
    """The comparison, joined with its own opposite, so that it keeps its shape."""

    def edit(model: onnx.ModelProto) -> None:
        graph = list(graphs_of(model.graph))[at[0]]
        node = graph.node[at[1]]
        name = node.output[0]
        node.output[0] = f"{name}_compared"
        further = [
            helper.make_node("Not", [f"{name}_compared"], [f"{name}_not"]),
            helper.make_node("Or" if value else "And", [f"{name}_compared", f"{name}_not"], [name]),
        ]
        for number, added in enumerate(further, start=1):
            graph.node.insert(at[1] + number, added)

    return edit


def _constant_mutants(at: Node, node: onnx.NodeProto, place: str) -> Iterator[Mutant]:
    if node.op_type != "Constant" or len(node.attribute) != 1:
        return
    values = constant_of(node)
    if values is None or values.size == 0 or values.size > 16 or values.dtype.kind not in "if":
        return
    for index in range(min(values.size, 4)):
        for moved in _moved(values, index):
            text = f"{place}[{index}] {values.flat[index]} -> {moved.flat[index]}"
            yield Mutant("constant moved", text, _change(at, _constant(moved)))
    if values.dtype.kind == "f" and 0 < values.flat[0] <= EPSILON_AT_MOST:
        text = f"{place} times 300"
        yield Mutant("epsilon times 300", text, _change(at, _constant((values * 300).astype(values.dtype))))


def constant_of(node: onnx.NodeProto) -> np.ndarray | None:
    """The value of a `Constant` node; `None` for text and sparse ones."""
    attribute = node.attribute[0]
    if attribute.name == "value":
        return numpy_helper.to_array(attribute.t)
    if attribute.name in ("value_int", "value_ints"):
        return np.array(helper.get_attribute_value(attribute), np.int64)
    if attribute.name in ("value_float", "value_floats"):
        return np.array(helper.get_attribute_value(attribute), np.float32)
    return None


def _moved(values: np.ndarray, index: int) -> Iterator[np.ndarray]:
    """`values` with one element moved: an integer by one either way, a real number by 2 %."""
    old = values.flat[index]
    steps = [old * 0.02 if old else 0.01] if values.dtype.kind == "f" else [1, -1]
    for step in steps:
        moved = np.array(values, copy=True)
        with np.errstate(over="ignore"):
            moved.reshape(-1)[index] += np.asarray(step).astype(values.dtype)
        if np.isfinite(moved).all() and moved.flat[index] != old:
            yield moved


def _constant(values: np.ndarray) -> Callable[[onnx.NodeProto], None]:
    def change(node: onnx.NodeProto) -> None:
        del node.attribute[:]
        node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(np.asarray(values))))

    return change


def _axis_mutants(at: Node, node: onnx.NodeProto, place: str) -> Iterator[Mutant]:
    for number, attribute in enumerate(node.attribute):
        if (
            attribute.name in ("axis", "axes", "start", "end", "group", "keepdims")
            and attribute.type == AttributeProto.INT
        ):
            for step in (1, -1):
                text = f"{place}.{attribute.name} {attribute.i} -> {attribute.i + step}"
                yield Mutant("axis moved", text, _change(at, _stepped(number, step)))
        if attribute.name == "perm":
            for first in range(len(attribute.ints) - 1):
                text = f"{place}.perm {first} and {first + 1} exchanged"
                yield Mutant("axis moved", text, _change(at, _permuted(number, first)))
        if attribute.name == "epsilon":
            yield Mutant("epsilon times 300", f"{place}.epsilon times 300", _change(at, _larger_epsilon(number)))


def _stepped(number: int, step: int) -> Callable[[onnx.NodeProto], None]:
    def change(node: onnx.NodeProto) -> None:
        node.attribute[number].i += step

    return change


def _permuted(number: int, first: int) -> Callable[[onnx.NodeProto], None]:
    def change(node: onnx.NodeProto) -> None:
        perm = node.attribute[number].ints
        perm[first], perm[first + 1] = perm[first + 1], perm[first]

    return change


def _larger_epsilon(number: int) -> Callable[[onnx.NodeProto], None]:
    def change(node: onnx.NodeProto) -> None:
        node.attribute[number].f *= 300

    return change


def is_float(tensor: onnx.TensorProto) -> bool:
    """Whether a tensor holds real numbers of 16 or 32 bits."""
    return tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16)
