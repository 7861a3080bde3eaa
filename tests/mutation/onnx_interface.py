"""Mutants of what a graph does with its inputs and outputs: masks, positions, sizes, caches, order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, helper, numpy_helper

from hfexport.export_config import axis_size
from mutation.mutant import Mutant

__all__ = ["interface_mutants"]

Edit = Callable[[onnx.ModelProto], None]


def interface_mutants(model: onnx.ModelProto, config: Any) -> Iterator[Mutant]:
    """Mutants of a graph whose inputs mean what `config` says."""
    present = [value.name for value in model.graph.input]
    specs = [spec for spec in config.inputs if spec.name in present]
    for spec in specs:
        for text, nodes in _instead(spec, config):
            yield Mutant("mask or position logic", f"{spec.name} {text}", _replaced(spec.name, nodes))
    for first, second in _pairs([spec.name for spec in specs if spec.role in ("past_key", "past_value")]):
        yield Mutant("inputs or outputs exchanged", f"{first} for {second}", _exchanged_inputs(first, second))
    for first, second in _pairs([value.name for value in model.graph.output]):
        yield Mutant("inputs or outputs exchanged", f"{first} for {second}", _exchanged_outputs(first, second))
    yield from _baked(model, specs, config)


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    return [*pairwise(names), *zip(names, names[2:], strict=False)]


def _constant(name: str, values: Any) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(values)))


def _instead(spec: Any, config: Any) -> Iterator[tuple[str, list[onnx.NodeProto]]]:
    """What goes into the graph instead of an input: the nodes that make `{name}_wrong` of it."""
    name, wrong = spec.name, f"{spec.name}_wrong"
    integer = spec.dtype == "int64"
    zero = [_constant("of_no_size", np.int64(0)), helper.make_node("Mul", [name, "of_no_size"], [wrong])]
    if spec.role == "attention_mask":
        one = _constant("one", np.int64(1))
        nothing = helper.make_node("Mul", [name, "of_no_size"], ["none_shown"])
        shown = helper.make_node("Add", ["none_shown", "one"], [wrong])
        yield "ignored", [zero[0], one, nothing, shown]
        yield "shifted by one", _shifted(name, wrong)
    if spec.role in ("token_type_ids", "position_ids", "language_ids") and integer:
        yield "ignored", zero
    if spec.role == "position_ids" or (spec.role in ("token_ids", "sentence_ids") and integer):
        largest = (
            (getattr(config, "max_positions", None) or 64) if spec.role == "position_ids" else config.vocabulary_size
        )
        for part, text in ((largest // 2, "half"), (largest - 2, "the last but one")):
            clipped = [_constant("largest", np.int64(part)), helper.make_node("Min", [name, "largest"], [wrong])]
            yield f"clipped at {text}", clipped
    if spec.role == "position_ids":
        yield "one more", [_constant("one", np.int64(1)), helper.make_node("Add", [name, "one"], [wrong])]
    if spec.role in ("pixel_values", "signal") and spec.dtype == "float":
        bounds = [_constant("low", np.float32(-4)), _constant("high", np.float32(4))]
        yield "clipped at 4", [*bounds, helper.make_node("Clip", [name, "low", "high"], [wrong])]
    if spec.role in ("past_key", "past_value") and spec.dtype == "float":
        nothing = _constant("nothing", np.float32(0))
        yield "ignored", [nothing, helper.make_node("Mul", [name, "nothing"], [wrong])]
        bounds = [_constant("low", np.float32(-2)), _constant("high", np.float32(2))]
        yield "clipped at 2", [*bounds, helper.make_node("Clip", [name, "low", "high"], [wrong])]


def _shifted(name: str, wrong: str) -> list[onnx.NodeProto]:
    """Every row moved by one place, the last value to the front."""
    ends = {"first": 0, "last": -1, "far": 2**62, "axis": -1}
    return [
        *(_constant(f"shift_{key}", np.array([value])) for key, value in ends.items()),
        helper.make_node("Slice", [name, "shift_last", "shift_far", "shift_axis"], ["shift_end"]),
        helper.make_node("Slice", [name, "shift_first", "shift_last", "shift_axis"], ["shift_rest"]),
        helper.make_node("Concat", ["shift_end", "shift_rest"], [wrong], axis=-1),
    ]


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _graphs(attribute.g)


def rename_uses(model: onnx.ModelProto, renamed: Callable[[str], str]) -> None:
    """Have every node, also those in subgraphs, read `renamed(name)` where it reads `name`."""
    for graph in _graphs(model.graph):
        for node in graph.node:
            for number, name in enumerate(node.input):
                node.input[number] = renamed(name)


def _replaced(name: str, nodes: Sequence[onnx.NodeProto]) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        rename_uses(model, lambda used: f"{name}_wrong" if used == name else used)
        for node in reversed(nodes):
            model.graph.node.insert(0, node)

    return edit


def _exchanged_inputs(first: str, second: str) -> Edit:
    other = {first: second, second: first}
    return lambda model: rename_uses(model, lambda used: other.get(used, used))


def _exchanged_outputs(first: str, second: str) -> Edit:
    other = {first: second, second: first}

    def edit(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            for number, name in enumerate(node.output):
                node.output[number] = other.get(name, name)
            for number, name in enumerate(node.input):
                node.input[number] = other.get(name, name)

    return edit


def _baked(model: onnx.ModelProto, specs: Sequence[Any], config: Any) -> Iterator[Mutant]:
    """Sizes of inputs, read by `Shape`, as constants of the example that was traced."""
    shapes = {spec.name: [axis_size(axis, config.trace_sizes) for axis in spec.axes] for spec in specs}
    for g, graph in enumerate(_graphs(model.graph)):
        for n, node in enumerate(graph.node):
            if node.op_type != "Shape" or node.input[0] not in shapes:
                continue
            given = {attribute.name: attribute.i for attribute in node.attribute}
            sizes = shapes[node.input[0]][given.get("start", 0) : given.get("end")]
            text = f"{g}/Shape of {node.input[0]} -> {sizes}"
            yield Mutant("traced size baked in", f"{text} at {node.output[0]}", _constant_at(g, n, sizes))


def _constant_at(g: int, n: int, values: Sequence[int]) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        node = list(_graphs(model.graph))[g].node[n]
        node.CopyFrom(_constant(node.output[0], np.array(values, np.int64)))

    return edit
