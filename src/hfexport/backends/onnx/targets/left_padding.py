"""Rewrite a decoder's graph so that it finds the padding at the start of prompts itself.

ONNX Runtime GenAI pads prompts on the right. For padding on the left, it passes an attention mask of ones and positions
that count the padding (`DefaultPositionInputs` in
https://github.com/microsoft/onnxruntime-genai/blob/main/src/models/position_inputs.cpp).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import onnx
from onnx import TensorProto, helper

from hfexport.backends.onnx.variants.graph import graphs_of

__all__ = ["can_find_padding", "write_left_padded"]

_INTEGERS: Final = TensorProto.INT64
_PREFIX: Final = "left_padding."


def can_find_padding(path: Path) -> bool:
    """Return whether attention takes any mask; `GroupQueryAttention` only takes lengths."""
    model = onnx.load(path, load_external_data=False)
    return all(node.op_type != "GroupQueryAttention" for graph in graphs_of(model.graph) for node in graph.node)


def write_left_padded(source: Path, target: Path, key: str, pad: int) -> Path:
    """Write a graph that does not see padding at the start of a prompt. Its external data stays that of `source`.

    In the first call, the padding of a row is its leading padding ids, less those that all rows have, which belong to the
    texts (a start token may have the same id). Later calls know them by the keys of one layer, which are set to zero there.

    Args:
        source: graph of a decoder with a cache, in the same folder as `target`.
        target: path of the new graph.
        key: name of the keys of a layer, such as `past_key_values.0.key`, of shape (batch, heads, past_sequence, head_size).
        pad: padding id.

    Returns:
        `target`.
    """
    model = onnx.load(source, load_external_data=False)
    graph = model.graph
    inputs = {value.name: value for value in graph.input}
    present = key.replace("past_key_values", "present")
    nodes = _Nodes()
    kept = _kept(nodes, key, pad, inputs[key].type.tensor_type.elem_type)
    renamed = {"attention_mask": nodes.add("Mul", "attention_mask", kept)}
    if "position_ids" in inputs:
        count = nodes.add("ReduceSum", nodes.add("Sub", nodes.constant(1), kept), nodes.constant([1]), keepdims=1)
        positions = nodes.add("Sub", "position_ids", count)
        renamed["position_ids"] = nodes.add("Max", positions, nodes.constant(0))
    renamed[present] = f"{_PREFIX}{present}"
    for inner in graphs_of(graph):
        for node in inner.node:
            for names in (node.input, node.output):
                for index, name in enumerate(list(names)):
                    names[index] = renamed.get(name, name)
    shown = nodes.add("Unsqueeze", nodes.cast(kept, inputs[key].type.tensor_type.elem_type), nodes.constant([1, 3]))
    last = helper.make_node("Mul", [renamed[present], shown], [present])
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in (*nodes.made, *graph.node, last)]
    graph.ClearField("node")
    graph.node.extend(copies)
    graph.initializer.extend(nodes.constants)
    target.write_bytes(model.SerializeToString(deterministic=True))
    return target


@dataclass
class _Nodes:
    """Nodes and constants with names of their own."""

    made: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def add(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Append a node; return the name of its output."""
        name = f"{_PREFIX}{op_type}_{len(self.made)}"
        self.made.append(helper.make_node(op_type, list(inputs), [name], name=name, **attributes))
        return name

    def cast(self, value: str, element: int) -> str:
        """Append a conversion to an element type."""
        return self.add("Cast", value, to=element)

    def constant(self, value: int | list[int]) -> str:
        """Append an int64 constant; return its name."""
        name = f"{_PREFIX}constant_{len(self.constants)}"
        shape, values = ([len(value)], value) if isinstance(value, list) else ([], [value])
        self.constants.append(helper.make_tensor(name, _INTEGERS, shape, values))
        return name


def _kept(nodes: _Nodes, key: str, pad: int, element: int) -> str:
    """Return the name of a mask of shape (batch, past_sequence + sequence): 0 for padding at the start, else 1."""
    add, constant = nodes.add, nodes.constant
    text = nodes.cast(add("Not", add("Equal", "input_ids", constant(pad))), _INTEGERS)
    before_text = add("Equal", add("CumSum", text, constant(1)), constant(0))
    leading = add("ReduceSum", nodes.cast(before_text, _INTEGERS), constant([1]), keepdims=1)
    padding = add("Sub", leading, add("ReduceMin", leading, keepdims=0))
    past_length = add("Gather", add("Shape", key), constant(2))
    is_first = nodes.cast(add("Equal", past_length, constant(0)), _INTEGERS)
    length = add("Gather", add("Shape", "input_ids"), constant(1))
    index = add("Range", constant(0), length, constant(1))
    new = nodes.cast(add("GreaterOrEqual", index, add("Mul", padding, is_first)), _INTEGERS)
    head = add("Slice", key, constant([0]), constant([1]), constant([1]))
    sizes = add("Abs", head if element == TensorProto.FLOAT else nodes.cast(head, TensorProto.FLOAT))
    zero = nodes.cast(constant(0), TensorProto.FLOAT)
    past = nodes.cast(add("Greater", add("ReduceSum", sizes, constant([1, 3]), keepdims=0), zero), _INTEGERS)
    return add("Concat", past, new, axis=1)
