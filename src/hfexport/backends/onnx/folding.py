"""Fold the operators of a fixed-shape graph that depend on sizes alone."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript.optimizer import fold_constants

__all__ = ["FoldSizesPass"]

LARGEST_CONSTANT = 2**20
"""Largest folded constant, in elements: a causal mask of 1024 x 1024 positions."""


class FoldSizesPass(ir.passes.InPlacePass):
    """Replace operators whose inputs are constants or sizes by their result.

    Weights have no data yet, so operators on weights stay.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        with _without_weights(model.graph), _quiet():
            folded = fold_constants(model, input_size_limit=LARGEST_CONSTANT, output_size_limit=LARGEST_CONSTANT)
            common.RemoveUnusedNodesPass()(model)
            for graph in (model.graph, *model.graph.subgraphs()):
                _store_as_nodes(graph)
        return ir.passes.PassResult(model, modified=folded.modified)


def _store_as_nodes(graph: ir.Graph) -> None:
    """Replace initializers with data, which folding made, by `Constant` nodes: all others are weights."""
    for name, value in list(graph.initializers.items()):
        if value.const_value is None:
            continue
        del graph.initializers[name]
        node = ir.node("Constant", [], attributes={"value": ir.tensor(value.const_value.numpy())})
        stored = node.outputs[0]
        stored.name, stored.shape, stored.type = f"{name}_folded", value.shape, value.type
        graph.insert_before(graph[0], node)
        value.replace_all_uses_with(stored, replace_graph_outputs=True)


@contextmanager
def _without_weights(graph: ir.Graph) -> Iterator[None]:
    """Hide the fake data of the weights, whose values must not be read."""
    kept = {name: value.const_value for name, value in graph.initializers.items()}
    for value in graph.initializers.values():
        value.const_value = None
    try:
        yield
    finally:
        for name, data in kept.items():
            if name in graph.initializers:
                graph.initializers[name].const_value = data


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide notes on operators that cannot be folded, and on values that the graph does not select, such as log(0)."""
    logger = logging.getLogger("onnxscript")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
