"""Insert nodes into an `onnx_ir` graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from hfexport.backends.onnx.variants.fused.matching import constant, producer

__all__ = ["SWAPPED", "Writer", "permutation"]

SWAPPED: Final = (0, 2, 1, 3)
"""Permutation between (batch, sequence, heads, head size) and (batch, heads, sequence, head size)."""


def permutation(node: ir.Node) -> tuple[int, ...] | None:
    """Return the permutation of a `Transpose`; `None` for other operators."""
    attribute = node.attributes.get("perm") if node.op_type == "Transpose" else None
    return tuple(attribute.as_ints()) if attribute is not None else None


@dataclass
class Writer:
    """Insert nodes before a node.

    Attributes:
        graph: graph with the node.
        before: the node.
        prefix: start of the names of new values.
    """

    graph: ir.Graph
    before: ir.Node
    prefix: str
    number: int = 0

    def add(self, op_type: str, inputs: Sequence[ir.Value | None], *, domain: str = "", **attributes: Any) -> ir.Value:
        """Insert a node with one output; return the output. Empty inputs at the end are left out."""
        given = list(inputs)
        while given and given[-1] is None:
            given.pop()
        node = ir.node(op_type, given, attributes=attributes, domain=domain)
        self.graph.insert_before(self.before, node)
        self.number += 1
        node.outputs[0].name = f"{self.prefix}_{op_type}_{self.number}"
        return node.outputs[0]

    def numbers(self, *values: int) -> ir.Value:
        """Insert a constant with one axis."""
        return self.add("Constant", [], value=ir.tensor(np.array(values, np.int64)))

    def reshape(self, value: ir.Value, *dims: int) -> ir.Value:
        """Insert a `Reshape`: 0 copies a dimension, -1 is inferred."""
        return self.add("Reshape", [value, self.numbers(*dims)])

    def transpose(self, value: ir.Value, *perm: int) -> ir.Value:
        """Insert a `Transpose`."""
        return self.add("Transpose", [value], perm=list(perm))

    def flat(self, value: ir.Value, heads: int, width: int) -> ir.Value | None:
        """Return (batch, sequence, heads x width) if a value (batch, heads, sequence, width) is a transpose of it."""
        swap = producer(value, "Transpose")
        if swap is None or permutation(swap) != SWAPPED or swap.inputs[0] is None:
            return None
        split = producer(swap.inputs[0], "Reshape")
        shape = constant(split.inputs[1]) if split is not None else None
        if split is not None and shape is not None and shape.tolist() in ([0, 0, heads, width], [0, -1, heads, width]):
            source = split.inputs[0]
            if source is not None and source.shape is not None and len(source.shape) == 3:
                return source
        return self.reshape(swap.inputs[0], 0, 0, heads * width)

    def replace(self, old: ir.Value, new: ir.Value) -> None:
        """Let all users of a value, and the graph's outputs, read another one."""
        new.shape, new.type = old.shape, old.type
        if old.is_graph_output():
            new.name, old.name = old.name, f"{self.prefix}_unfused"
        old.replace_all_uses_with(new, replace_graph_outputs=True)
