"""Merge two decoders into the branches of one graph with shared weights.

Names are those of Optimum's `merge_decoders`, which Optimum and Transformers.js expect:
https://github.com/huggingface/optimum-onnx/blob/main/optimum/onnx/graph_transformations.py
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import helper

from hfexport.backends.onnx.passes import axis_names

if TYPE_CHECKING:
    from hfexport.export_config import ExportConfig, TensorSpec

__all__ = ["merge_branches"]


def merge_branches(begins: onnx.ModelProto, goes_on: onnx.ModelProto, config: ExportConfig) -> onnx.ModelProto:
    """Return a graph that runs `goes_on` if its last input is true, else `begins`.

    Outputs that `goes_on` lacks are returned empty; consumers keep their earlier values.

    Args:
        begins: model without weights; other values may have the same names as in `goes_on`.
        goes_on: model without weights.
        config: inputs and outputs of the merged graph.
    """
    known = {value.name: value for value in (*begins.graph.input, *goes_on.graph.input, *begins.graph.output)}
    choice = config.inputs[-1].name
    known[choice] = helper.make_tensor_value_info(choice, onnx.TensorProto.BOOL, [1])
    given = {value.name for value in goes_on.graph.output}
    goes_on.graph.node.extend(_without_tokens([spec.name for spec in config.outputs if spec.name not in given]))
    outputs = [spec.name for spec in config.outputs]
    branches = {
        f"{key}_branch": helper.make_graph(
            part.graph.node,
            name,
            [],
            [helper.make_tensor_value_info(output, _element(known[output]), None) for output in outputs],
        )
        for key, name, part in (("then", "with_past", goes_on), ("else", "no_past", begins))
    }

    def declared(specs: tuple[TensorSpec, ...]) -> list[onnx.ValueInfoProto]:
        return [_declared(spec, known[spec.name], config) for spec in specs]

    merged = onnx.ModelProto()
    merged.CopyFrom(begins)
    choose = helper.make_node("If", [choice], outputs, name="use_cache", **branches)
    merged.graph.CopyFrom(helper.make_graph([choose], "merged", declared(config.inputs), declared(config.outputs)))
    return merged


def _element(value: onnx.ValueInfoProto) -> int:
    return int(value.type.tensor_type.elem_type)


def _declared(spec: TensorSpec, known: onnx.ValueInfoProto, config: ExportConfig) -> onnx.ValueInfoProto:
    """Declare an input or output of the merged graph: the axes of `spec`, and its fixed axes from `known`.

    The number and size of a cache's heads stay dynamic: Optimum creates the first, empty cache with those of the
    encoder, which can differ (as in FLAN-T5), and the first branch does not read it.
    https://github.com/huggingface/optimum-onnx/blob/main/optimum/onnxruntime/modeling_seq2seq.py
    """
    trailing = [dim.dim_value for dim in known.type.tensor_type.shape.dim[len(spec.axes) :]]
    axes = [*axis_names(spec, config), *trailing]
    if spec.role in ("past_key", "past_value"):
        axes[1], axes[3] = "heads", "head_size"
    return helper.make_tensor_value_info(spec.name, _element(known), axes)


def _without_tokens(names: list[str]) -> list[onnx.NodeProto]:
    """Return nodes that return each given `present.*` from its input, cut to length 0."""
    if not names:
        return []
    ends = {"none": 0, "token_axis": 2}
    nodes = [
        helper.make_node("Constant", [], [name], value=helper.make_tensor(name, onnx.TensorProto.INT64, [1], [value]))
        for name, value in ends.items()
    ]
    for name in names:
        source = "past_key_values." + name.removeprefix("present.")
        nodes.append(helper.make_node("Slice", [source, "none", "none", "token_axis"], [name]))
    return nodes
