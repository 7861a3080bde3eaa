"""Fuse parts of a plain graph into operators of ONNX Runtime that compute the same, in the graph and its branches.

Weights stay where they are: a fusion reads shapes and small constants only, so memory does not grow with the model.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Final

import onnx
import onnx_ir as ir
from onnx import helper, shape_inference
from onnx_ir.passes import common

from hfexport.backends.onnx.variants.fused.attention import fuse_attention
from hfexport.backends.onnx.variants.fused.matching import fold_constants
from hfexport.backends.onnx.variants.fused.norms import fuse_norms
from hfexport.backends.onnx.variants.fused.rotary import fuse_rotations
from hfexport.backends.onnx.variants.graph import Opened, graphs_of

__all__ = ["fuse", "fused_operators"]

OPERATORS: Final = ("MultiHeadAttention", "RotaryEmbedding", "SimplifiedLayerNormalization")
"""Operators of ONNX Runtime that the fusions write."""


def fuse(opened: Opened) -> None:
    """Fuse the operators of an opened model in place; drop weights that are no longer used."""
    model = _with_weights_as_inputs(opened)
    for graph in (model.graph, *model.graph.subgraphs()):
        fuse_norms(graph)
        fuse_rotations(graph)
        fuse_attention(graph)
    common.RemoveUnusedNodesPass()(model)
    made = ir.serde.serialize_model(model).graph
    for graph in graphs_of(made):
        graph.ClearField("value_info")
    kept = [value for value in made.input if value.name not in opened.weights]
    del made.input[:]
    made.input.extend(kept)
    opened.model.graph.CopyFrom(made)
    used = {name for graph in graphs_of(made) for node in graph.node for name in node.input}
    used |= {value.name for graph in graphs_of(made) for value in graph.output}
    for name in [name for name in opened.weights if name not in used]:
        del opened.weights[name]


def _with_weights_as_inputs(opened: Opened) -> ir.Model:
    """Return the model with all shapes that ONNX infers, and its weights as inputs without data."""
    proto = onnx.ModelProto()
    proto.CopyFrom(opened.model)
    proto.graph.input.extend(
        helper.make_tensor_value_info(weight.name, weight.data_type, weight.shape) for weight in opened.weights.values()
    )
    model = ir.serde.deserialize_model(proto)
    for graph in (model.graph, *model.graph.subgraphs()):
        fold_constants(graph)
    return ir.serde.deserialize_model(shape_inference.infer_shapes(ir.serde.serialize_model(model), data_prop=True))


def fused_operators(path: Path) -> Counter[str]:
    """Count the operators of ONNX Runtime in a file, with its branches."""
    model = onnx.load(path, load_external_data=False)
    return Counter(node.op_type for graph in graphs_of(model.graph) for node in graph.node if node.op_type in OPERATORS)
