"""Graph passes: set names that consumers expect, and simplify for ONNX Runtime's fusions. Plain ONNX operators only.

Every pass also changes the graphs inside nodes, such as the branches of an `If`.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from hfexport.backends.onnx.folding import FoldSizesPass
from hfexport.errors import ExportError

if TYPE_CHECKING:
    from hfexport.export_config import Axis, ExportConfig, TensorSpec

__all__ = [
    "TRANSPOSED",
    "ClearNotesPass",
    "NameAxesPass",
    "ReplaceCastLikePass",
    "StaticReshapePass",
    "TransposeWeightsPass",
    "axis_names",
    "finish_graph",
]

TRANSPOSED = "hfexport.transposed"
"""Key in an initializer's `meta`: the data is the transpose of the named weight."""


def finish_graph(model: ir.Model, config: ExportConfig) -> None:
    """Simplify `model` in place and give its inputs and outputs the names and axes of `config`.

    Passes of `onnx_ir` that read or merge initializers are left out: weights have no data yet, and are merged by the
    tensors of the model that fill them (`skeleton`).

    Raises:
        ExportError: an input has no effect on any output.
    """
    # Not `ir.passes.Sequential`, which replaces every exception by one of its own.
    for one in (
        ReplaceCastLikePass(),
        *([FoldSizesPass()] if config.fixed_sizes else []),
        StaticReshapePass(),
        common.IdentityEliminationPass(),
        TransposeWeightsPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.OutputFixPass(),
        NameAxesPass(config),
    ):
        one(model)
    _refuse_dead_inputs(model.graph, config)
    ClearNotesPass()(model)


class StaticReshapePass(ir.passes.InPlacePass):
    """Give each `Reshape` a constant shape if possible: 0 copies a dimension, one -1 is inferred.

    ONNX Runtime's attention and layer-norm fusions match constant shapes only.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        nodes = [node for node in _nodes(model) if node.op_type == "Reshape"]
        changed = [_set_static_shape(node) for node in nodes]
        return ir.passes.PassResult(model, modified=any(changed))


def _set_static_shape(node: ir.Node) -> bool:
    data, result = node.inputs[0], node.outputs[0]
    if data is None or data.shape is None or result.shape is None:
        return False
    dims: list[int] = []
    for index, dim in enumerate(result.shape):
        if isinstance(dim, int):
            dims.append(dim)
        elif index < len(data.shape) and data.shape[index] == dim:
            dims.append(0)
        else:
            dims.append(-1)
    if dims.count(-1) > 1 or (0 in dims and any(dim == 0 for dim in result.shape if isinstance(dim, int))):
        return False
    shape = ir.node("Constant", [], attributes={"value": ir.tensor(np.array(dims, dtype=np.int64))})
    shape.outputs[0].name = f"{result.name}_shape"
    _graph(node).insert_before(node, shape)
    node.replace_input_with(1, shape.outputs[0])
    if "allowzero" in node.attributes:
        node.attributes.pop("allowzero")
    return True


class ReplaceCastLikePass(ir.passes.InPlacePass):
    """Replace each `CastLike` to a known type by a `Cast`, which ONNX Runtime folds, or by an `Identity`."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        nodes = [node for node in _nodes(model) if node.op_type == "CastLike"]
        changed = [_replace_cast_like(node) for node in nodes]
        return ir.passes.PassResult(model, modified=any(changed))


def _replace_cast_like(node: ir.Node) -> bool:
    source, target = node.inputs
    result = node.outputs[0]
    assert source is not None
    assert target is not None
    if target.dtype is None:
        return False
    result.dtype = target.dtype
    if source.dtype == target.dtype:
        op = ir.node("Identity", [source])
    else:
        op = ir.node("Cast", [source], attributes={"to": int(target.dtype)})
    new = op.outputs[0]
    new.shape, new.type, new.name = result.shape, result.type, f"{result.name}_cast"
    graph = _graph(node)
    graph.insert_before(node, op)
    result.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    return True


class TransposeWeightsPass(ir.passes.InPlacePass):
    """Store weights that are only used transposed in transposed form, so that sessions need not transpose them."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        weights = model.graph.initializers
        changed = [_transpose_weight(weights, weight) for weight in list(weights.values())]
        return ir.passes.PassResult(model, modified=any(changed))


def _transpose_weight(weights: MutableMapping[str, ir.Value], weight: ir.Value) -> bool:
    users = [usage.node for usage in weight.uses()]
    if not users or weight.shape is None or len(weight.shape) != 2:
        return False
    if not all(node.op_type == "Transpose" and _permutation(node) == (1, 0) for node in users):
        return False
    if any(node.outputs[0].is_graph_output() for node in users):
        return False
    name = weight.name
    assert name is not None
    turned = ir.Value(name=name, shape=ir.Shape(reversed(list(weight.shape))), type=weight.type)
    turned.meta[TRANSPOSED] = True
    turned.const_value = None
    for node in users:
        node.outputs[0].replace_all_uses_with(turned)
        _graph(node).remove(node, safe=True)
    del weights[name]
    weights[name] = turned
    return True


def _permutation(node: ir.Node) -> tuple[int, ...]:
    attribute = node.attributes.get("perm")
    return tuple(attribute.as_ints()) if attribute is not None else (1, 0)


class NameAxesPass(ir.passes.InPlacePass):
    """Name inputs, outputs and their free dimensions; drop all other shapes, which ONNX Runtime infers.

    Args:
        config: export config with the names.
    """

    def __init__(self, config: ExportConfig) -> None:
        self._config = config

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph, config = model.graph, self._config
        kept = {id(value) for value in (*graph.inputs, *graph.outputs, *graph.initializers.values())}
        for node in _nodes(model):
            for value in node.outputs:
                if id(value) not in kept:
                    value.shape = None
        for value, spec in zip(graph.inputs, config.inputs, strict=True):
            value.name = spec.name
            _set_axes(value, spec, config)
        for value, spec in zip(graph.outputs, config.outputs, strict=True):
            value.name = spec.name
            _set_axes(value, spec, config)
        return ir.passes.PassResult(model, modified=True)


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


class ClearNotesPass(ir.passes.InPlacePass):
    """Remove the exporter's notes: half of a small model's file, with paths of the exporting machine."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = common.ClearMetadataAndDocStringPass()(model).modified
        for graph in (model.graph, *model.graph.subgraphs()):
            values = (*graph.inputs, *graph.outputs, *graph.initializers.values())
            for notes in (graph.metadata_props, *(value.metadata_props for value in values)):
                modified = modified or bool(notes)
                notes.clear()
        return ir.passes.PassResult(model, modified=modified)


def _nodes(model: ir.Model) -> list[ir.Node]:
    """Return the nodes of the graph and of the graphs inside them, in a list that stays when they change."""
    return list(ir.traversal.RecursiveGraphIterator(model.graph))


def _graph(node: ir.Node) -> ir.Graph:
    assert isinstance(node.graph, ir.Graph)
    return node.graph
