"""float16 variants: give a float16 graph float32 inputs and outputs, as loaders expect them."""

from __future__ import annotations

from collections.abc import Mapping, MutableSequence

import onnx
from onnx import helper

from hfexport.backends.onnx.variants.graph import Opened, graphs_of

__all__ = ["keep_io_types"]


def keep_io_types(opened: Opened) -> None:
    """Convert float32 inputs to float16 inside of the graph, and float16 outputs to float32."""
    graph = opened.model.graph
    renamed: dict[str, str] = {}
    before, after = [], []
    for value in graph.input:
        if _is_half(value):
            renamed[value.name] = f"{value.name}_half"
            before.append(helper.make_node("Cast", [value.name], [renamed[value.name]], to=onnx.TensorProto.FLOAT16))
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    outputs: dict[str, str] = {}
    for value in graph.output:
        if _is_half(value):
            outputs[value.name] = f"{value.name}_half"
            after.append(helper.make_node("Cast", [outputs[value.name]], [value.name], to=onnx.TensorProto.FLOAT))
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    for inner in graphs_of(graph):
        own = outputs if inner is graph else {}
        for node in inner.node:
            _rename(node.input, {**renamed, **own})
            _rename(node.output, own)
    nodes = list(graph.node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in (*before, *nodes, *after)]
    graph.ClearField("node")
    graph.node.extend(copies)


def _is_half(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16)


def _rename(names: MutableSequence[str], new: Mapping[str, str]) -> None:
    for index, name in enumerate(list(names)):
        if name in new:
            names[index] = new[name]
