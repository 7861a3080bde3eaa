"""Replace operators with constant weights, in a graph and in its branches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import onnx
from onnx import helper

from hfexport.backends.onnx.variants.graph import Opened, Stored, graphs_of

__all__ = ["Matrix", "Rule", "Scope", "has_convolutions", "rewrite"]


@dataclass(frozen=True)
class Matrix:
    """A constant operand of a matrix product, (K, N) in the product.

    Attributes:
        tensor: the stored weight.
        turned: the weight is stored as (N, K) and the product uses its transpose.
    """

    tensor: Stored
    turned: bool

    @property
    def sizes(self) -> tuple[int, int]:
        """Return K, the number of inputs, and N, the number of outputs."""
        rows, columns = self.tensor.shape
        return (columns, rows) if self.turned else (rows, columns)


@dataclass(frozen=True)
class Scope:
    """Nodes that a rule makes for one graph; `shared` are those that several operators may use, by a key."""

    nodes: list[onnx.NodeProto]
    shared: dict[tuple[str, ...], tuple[str, ...]]
    prefix: str

    def add(self, op_type: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:
        """Append a node of the given type."""
        self.nodes.append(helper.make_node(op_type, list(inputs), list(outputs), name=outputs[0], **attributes))

    def once(self, op_type: str, inputs: Sequence[str], suffixes: Sequence[str], **attributes: Any) -> tuple[str, ...]:
        """Append a node unless the graph has the same one; return the names of its outputs."""
        key = (op_type, *inputs, *suffixes)
        if key not in self.shared:
            self.shared[key] = tuple(f"{self.prefix}{inputs[0]}_{suffix}" for suffix in suffixes)
            self.add(op_type, inputs, self.shared[key], **attributes)
        return self.shared[key]


class Rule(Protocol):
    """Replaces operators by those that take smaller weights. Each method appends nodes that give `output`.

    A method returns false, without appending anything, if the operator has to stay as it is.
    """

    def product(self, scope: Scope, given: str, matrix: Matrix, output: str) -> bool:
        """Replace the product of `given` (…, K) and a matrix."""
        ...

    def lookup(self, scope: Scope, table: Stored, indices: str, output: str) -> bool:
        """Replace the selection of rows of a table (rows, columns)."""
        ...

    def constant(self, scope: Scope, tensor: Stored, kept: tuple[int, ...], output: str) -> bool:
        """Replace a weight of any shape by a computation from a smaller one, with one scale for each index of `kept`."""
        ...


def has_convolutions(opened: Opened) -> bool:
    """Return whether a graph or one of its branches has a convolution."""
    return any(node.op_type.startswith("Conv") for graph in graphs_of(opened.model.graph) for node in graph.node)


def rewrite(opened: Opened, rule: Rule) -> int:
    """Apply a rule to every operator with a constant weight; drop weights that are no longer used.

    Returns:
        The number of operators that were replaced.
    """
    replaced = 0
    for number, graph in enumerate(graphs_of(opened.model.graph)):
        replaced += _rewrite_graph(graph, opened, rule, f"g{number}_" if number else "")
    _drop_unused(opened)
    return replaced


def _rewrite_graph(graph: onnx.GraphProto, opened: Opened, rule: Rule, prefix: str) -> int:
    scope = Scope([], {}, prefix)
    turned = {node.output[0]: node.input[0] for node in graph.node if _swaps(node)}
    replaced = 0
    for node in graph.node:
        before = len(scope.nodes)
        if _replace(node, opened, rule, scope, turned):
            replaced += 1
        else:
            assert len(scope.nodes) == before, f"{node.op_type}: a rule that refuses leaves no nodes"
            scope.nodes.append(node)
    nodes = [_copy(node) for node in scope.nodes]
    graph.ClearField("node")
    graph.node.extend(nodes)
    return replaced


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copied = onnx.NodeProto()
    copied.CopyFrom(node)
    return copied


def _replace(node: onnx.NodeProto, opened: Opened, rule: Rule, scope: Scope, turned: dict[str, str]) -> bool:
    if node.op_type == "MatMul":
        return _replace_product(node, opened, rule, scope, turned)
    if node.op_type == "Gemm":
        return _replace_gemm(node, opened, rule, scope, turned)
    if node.op_type == "Gather" and _number(node, "axis", 0) == 0:
        table = _float(opened, node.input[0])
        return table is not None and len(table.shape) == 2 and rule.lookup(scope, table, node.input[1], node.output[0])
    if node.op_type in ("Conv", "ConvTranspose"):
        kernel = _float(opened, node.input[1])
        kept = (0,) if node.op_type == "Conv" else (0, 1)
        output = f"{scope.prefix}{node.output[0]}_kernel"
        return kernel is not None and rule.constant(scope, kernel, kept, output) and _with_weight(node, output, scope)
    return False


def _replace_product(node: onnx.NodeProto, opened: Opened, rule: Rule, scope: Scope, turned: dict[str, str]) -> bool:
    matrix = _matrix(node.input[1], opened, turned)
    if matrix is not None:
        return rule.product(scope, node.input[0], matrix, node.output[0])
    return _replace_stack(node, opened, rule, scope)


def _replace_stack(node: onnx.NodeProto, opened: Opened, rule: Rule, scope: Scope) -> bool:
    """Replace the weight of a product with a stack of matrices (…, K, N), as of experts."""
    stack = _float(opened, node.input[1])
    output = f"{scope.prefix}{node.output[0]}_stack"
    if stack is None or len(stack.shape) < 3:
        return False
    kept = (*range(len(stack.shape) - 2), len(stack.shape) - 1)
    return rule.constant(scope, stack, kept, output) and _with_weight(node, output, scope)


def _with_weight(node: onnx.NodeProto, weight: str, scope: Scope) -> bool:
    changed = _copy(node)
    changed.input[1] = weight
    scope.nodes.append(changed)
    return True


def _replace_gemm(node: onnx.NodeProto, opened: Opened, rule: Rule, scope: Scope, turned: dict[str, str]) -> bool:
    """Replace a product with a bias, if it neither scales nor transposes its first input."""
    plain = all(_number(node, name, 1.0) == 1.0 for name in ("alpha", "beta")) and not _number(node, "transA", 0)
    matrix = _matrix(node.input[1], opened, turned) if plain else None
    if matrix is None:
        return False
    if _number(node, "transB", 0):
        matrix = Matrix(matrix.tensor, not matrix.turned)
    biased = len(node.input) > 2 and bool(node.input[2])
    product = f"{node.output[0]}_product" if biased else node.output[0]
    if not rule.product(scope, node.input[0], matrix, product):
        return False
    if biased:
        scope.add("Add", [product, node.input[2]], [node.output[0]])
    return True


def _matrix(name: str, opened: Opened, turned: dict[str, str]) -> Matrix | None:
    tensor = _float(opened, turned.get(name, name))
    return Matrix(tensor, name in turned) if tensor is not None and len(tensor.shape) == 2 else None


def _float(opened: Opened, name: str) -> Stored | None:
    tensor = opened.weights.get(name)
    return tensor if isinstance(tensor, Stored) and tensor.is_float else None


def _swaps(node: onnx.NodeProto) -> bool:
    """Return whether a node transposes a matrix."""
    return node.op_type == "Transpose" and any(
        attribute.name == "perm" and list(attribute.ints) == [1, 0] for attribute in node.attribute
    )


def _number(node: onnx.NodeProto, name: str, default: float) -> float:
    for attribute in node.attribute:
        if attribute.name == name:
            return float(helper.get_attribute_value(attribute))
    return default


def _drop_unused(opened: Opened) -> None:
    """Remove transposes whose result nothing uses, and weights that no node uses."""
    graphs = list(graphs_of(opened.model.graph))
    used = {name for graph in graphs for node in graph.node for name in node.input}
    used |= {value.name for graph in graphs for value in graph.output}
    for graph in graphs:
        nodes = [_copy(node) for node in graph.node if node.output[0] in used or not _swaps(node)]
        if len(nodes) < len(graph.node):
            graph.ClearField("node")
            graph.node.extend(nodes)
    used = {name for graph in graphs for node in graph.node for name in node.input}
    used |= {value.name for value in opened.model.graph.output}
    for name in [name for name in opened.weights if name not in used]:
        del opened.weights[name]
