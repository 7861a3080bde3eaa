"""Graph passes: set names that consumers expect, and simplify for ONNX Runtime's fusions. Plain ONNX operators only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from hfexport.backends.onnx.folding import fold_sizes
from hfexport.errors import ExportError

if TYPE_CHECKING:
    from hfexport.export_config import Axis, ExportConfig, TensorSpec

__all__ = ["TRANSPOSED", "axis_names", "finish_graph"]

TRANSPOSED = "hfexport.transposed"
"""Key in an initializer's `meta`: the data is the transpose of the named weight."""


def finish_graph(model: ir.Model, config: ExportConfig) -> None:
    """Simplify `model` in place and give its inputs and outputs the names and axes of `config`.

    Raises:
        ExportError: an input has no effect on any output.
    """
    _replace_cast_likes(model.graph)
    if config.fixed_sizes:
        fold_sizes(model)
    _set_static_reshapes(model.graph)
    common.IdentityEliminationPass()(model)
    _transpose_weights(model.graph)
    common.CommonSubexpressionEliminationPass()(model)
    common.RemoveUnusedNodesPass()(model)
    _separate_outputs(model.graph)
    _name_axes(model.graph, config)
    _refuse_dead_inputs(model.graph, config)
    _forget_where_nodes_came_from(model)


def _set_static_reshapes(graph: ir.Graph) -> None:
    """Give each `Reshape` a constant shape if possible: 0 copies a dimension, one -1 is inferred.

    ONNX Runtime's attention and layer-norm fusions match constant shapes only.
    """
    for node in graph:
        if node.op_type != "Reshape":
            continue
        data, result = node.inputs[0], node.outputs[0]
        if data is None or data.shape is None or result.shape is None:
            continue
        dims: list[int] = []
        for index, dim in enumerate(result.shape):
            if isinstance(dim, int):
                dims.append(dim)
            elif index < len(data.shape) and data.shape[index] == dim:
                dims.append(0)
            else:
                dims.append(-1)
        if dims.count(-1) > 1 or (0 in dims and any(dim == 0 for dim in result.shape if isinstance(dim, int))):
            continue
        shape = ir.node("Constant", [], attributes={"value": ir.tensor(np.array(dims, dtype=np.int64))})
        shape.outputs[0].name = f"{result.name}_shape"
        graph.insert_before(node, shape)
        node.replace_input_with(1, shape.outputs[0])
        if "allowzero" in node.attributes:
            node.attributes.pop("allowzero")


def _replace_cast_likes(graph: ir.Graph) -> None:
    """Replace a `CastLike` to a known type by a `Cast`, which ONNX Runtime folds, or remove it."""
    for node in graph:
        if node.op_type != "CastLike":
            continue
        source, target = node.inputs
        result = node.outputs[0]
        assert source is not None
        assert target is not None
        if target.dtype is None:
            continue
        result.dtype = target.dtype
        if source.dtype == target.dtype:
            op = ir.node("Identity", [source])
        else:
            op = ir.node("Cast", [source], attributes={"to": int(target.dtype)})
        new = op.outputs[0]
        new.shape, new.type, new.name = result.shape, result.type, f"{result.name}_cast"
        graph.insert_before(node, op)
        result.replace_all_uses_with(new, replace_graph_outputs=True)
        graph.remove(node, safe=True)


def _transpose_weights(graph: ir.Graph) -> None:
    """Store weights that are only used transposed in transposed form, so that sessions need not transpose them."""
    for weight in list(graph.initializers.values()):
        users = [usage.node for usage in weight.uses()]
        if not users or weight.shape is None or len(weight.shape) != 2:
            continue
        if not all(node.op_type == "Transpose" and _permutation(node) == (1, 0) for node in users):
            continue
        name = weight.name
        assert name is not None
        turned = ir.Value(name=name, shape=ir.Shape(reversed(list(weight.shape))), type=weight.type)
        turned.meta[TRANSPOSED] = True
        turned.const_value = None
        for node in users:
            node.outputs[0].replace_all_uses_with(turned)
            graph.remove(node, safe=True)
        del graph.initializers[name]
        graph.initializers[name] = turned


def _permutation(node: ir.Node) -> tuple[int, ...]:
    attribute = node.attributes.get("perm")
    return tuple(attribute.as_ints()) if attribute is not None else (1, 0)


def _separate_outputs(graph: ir.Graph) -> None:
    """Copy a value that is several outputs, such as the last hidden state, so that each output has its own name."""
    seen: set[int] = set()
    for index, value in enumerate(graph.outputs):
        if id(value) in seen:
            copied = ir.node("Identity", [value])
            copy = copied.outputs[0]
            copy.shape, copy.type, copy.name = value.shape, value.type, f"{value.name}_{index}"
            graph.append(copied)
            graph.outputs[index] = copy
        seen.add(id(value))


def _name_axes(graph: ir.Graph, config: ExportConfig) -> None:
    """Name the free dimensions of inputs and outputs; ONNX Runtime infers all other shapes."""
    kept = {id(value) for value in (*graph.inputs, *graph.outputs, *graph.initializers.values())}
    for node in graph:
        for value in node.outputs:
            if id(value) not in kept:
                value.shape = None
    for value, spec in zip(graph.inputs, config.inputs, strict=True):
        value.name = spec.name
        _set_axes(value, spec, config)
    for value, spec in zip(graph.outputs, config.outputs, strict=True):
        value.name = spec.name
        _set_axes(value, spec, config)


def axis_names(spec: TensorSpec, config: ExportConfig) -> list[Axis]:
    """Return the axes of an input or output by their names in the file.

    In a graph with a cache, the batch is named `batch_size`: Transformers.js creates the first, empty cache with the
        declared sizes and treats all other names as 0.
    https://github.com/huggingface/transformers.js/blob/main/packages/transformers/src/models/modeling_utils.js
    """
    if not any(given.role == "past_key" for given in config.inputs):
        return list(spec.axes)
    return ["batch_size" if axis == "batch" else axis for axis in spec.axes]


def _set_axes(value: ir.Value, spec: TensorSpec, config: ExportConfig) -> None:
    assert value.shape is not None
    dims: list[int | str] = []
    names = axis_names(spec, config)
    for index, dim in enumerate(value.shape):
        axis = names[index] if index < len(names) else None
        if isinstance(dim, int):
            dims.append(dim)
        elif isinstance(axis, str):
            dims.append(axis)
        else:
            dims.append(f"{spec.name}_{index}")
    value.shape = ir.Shape(dims)


def _refuse_dead_inputs(graph: ir.Graph, config: ExportConfig) -> None:
    outputs = {id(value) for value in graph.outputs}
    dead = [str(value.name) for value in graph.inputs if not value.uses() and id(value) not in outputs]
    if dead:
        raise ExportError(
            f"ONNX: the graph for task {config.task.name} makes no use of its input {', '.join(dead)}",
            remedy="An artifact that ignores an input would answer wrongly; please report it with config.json.",
        )


def _forget_where_nodes_came_from(model: ir.Model) -> None:
    """Drop the exporter's notes on every node: half of a small model's file, with paths of the exporting machine."""
    common.ClearMetadataAndDocStringPass()(model)
    model.graph.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
