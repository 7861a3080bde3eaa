"""Lower a captured program to an ONNX graph with `torch.onnx`, without redundant steps.

Each shortcut yields the same graph as `torch.onnx` alone, and names the upstream change after which it can go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from operator import getitem
from typing import TYPE_CHECKING, Any

import torch
import torch.fx

from hfexport._internal.upstream.script import values
from hfexport._internal.upstream.torch_onnx import (
    OpOverload,
    exporter_core,
    fx_passes,
    set_graph_module,
    type_promotion,
)

if TYPE_CHECKING:
    from hfexport.export_config import ExportConfig

__all__ = ["lower"]


def lower(
    program: torch.export.ExportedProgram,
    config: ExportConfig,
    opset: int,
    translations: Mapping[Any, Callable[..., Any]],
) -> torch.onnx.ONNXProgram:
    """Return the ONNX graph of a captured program.

    Args:
        program: captured program; it is modified and must not be used afterwards.
        config: names of inputs and outputs.
        opset: ONNX opset.
        translations: translations of further operators, in addition to those of `torch.onnx`.
    """
    _squeeze_fixed_axes(program.graph_module)
    _sum_up_in_double(program.graph_module)
    with ExitStack() as stack:
        for shortcut in (_light_preparation, _values_that_are_known, _registry_without_sources):
            stack.enter_context(shortcut())
        lowered = torch.onnx.export(
            program,
            args=(),
            input_names=[spec.name for spec in config.inputs],
            output_names=[spec.name for spec in config.outputs],
            custom_translation_table=dict(translations),
            opset_version=opset,
            optimize=False,
            verbose=False,
        )
    assert lowered is not None, "without a file to write to, torch.onnx gives the program"
    return lowered


def _squeeze_fixed_axes(module: torch.fx.GraphModule) -> None:
    """Set the axes of every squeeze explicitly: those of its axes that always have size 1.

    Otherwise ONNX squeezes every axis that has size 1 at run time, such as a batch of one in mBART's
    `shift_tokens_right`, and rejects a named axis of another size, as in time series models with two variates:
    https://github.com/pytorch/pytorch/issues/109292. This can go when the translations of `aten.squeeze` do the same.
    """
    for node in module.graph.nodes:
        if node.target in (_aten.squeeze.default, _aten.squeeze.dim):
            source, *named = node.args
            shape = source.meta["val"].shape
            chosen = [axis % len(shape) for axis in named] if named else range(len(shape))
            axes = [axis for axis in chosen if isinstance(shape[axis], int) and shape[axis] == 1]
            node.target, node.args = (_aten.squeeze.dims, (source, axes)) if axes else (_aten.clone.default, (source,))


def _sum_up_in_double(module: torch.fx.GraphModule) -> None:
    """Make every `cumsum` of floats accumulate in double, as torch does on CPU; ONNX Runtime accumulates in floats.

    LongT5 rounds such a sum down to count blocks, so the last bit can change the block. Precision in torch:
    https://github.com/pytorch/pytorch/issues/180153. This can go when the translation of `aten.cumsum` keeps it.
    """
    for node in module.graph.nodes:
        if node.target is _aten.cumsum.default and node.args[0].meta["val"].dtype == torch.float32 and not node.kwargs:
            value = node.meta["val"]
            with module.graph.inserting_after(node):
                rounded = module.graph.call_function(_aten._to_copy.default, (node,), {"dtype": torch.float32})
            node.replace_all_uses_with(rounded, delete_user_cb=lambda user, rounded=rounded: user is not rounded)
            node.kwargs = {"dtype": torch.float64}
            node.meta["val"], rounded.meta["val"] = value.to(torch.float64), value


@contextmanager
def _light_preparation() -> Iterator[None]:
    """Lower without `run_decompositions` if every operator has a translation.

    Decomposing traces the whole model again and takes longer than all other steps of lowering together, for the same
    graph: https://github.com/pytorch/pytorch/issues/150523 asks for an export that needs no decomposition table.
        This can go when `torch.onnx` skips operators that need none. A graph with any other operator is still
        decomposed.
    """
    thorough = exporter_core._prepare_exported_program_for_export

    def prepare(program: torch.export.ExportedProgram, *, registry: Any) -> torch.export.ExportedProgram:
        graph = program.graph_module.graph
        nodes = [node for node in graph.nodes if node.op == "call_function"]
        if any(isinstance(module, torch.fx.GraphModule) for module in program.graph_module.children()):
            return thorough(program, registry=registry)
        operators = [node for node in nodes if isinstance(node.target, OpOverload)]
        if any(not _has_translation(node, registry) for node in operators):
            return thorough(program, registry=registry)
        for node in nodes:
            # `apply_fx_node_fixes` replaces in-place operators by others without setting their shapes.
            if "val" not in node.meta and node.args and isinstance(node.args[0], torch.fx.Node):
                node.meta["val"] = node.args[0].meta["val"]
            _REWRITES.get(node.target, _keep)(graph, node)
        graph.eliminate_dead_code()
        fx_passes.insert_type_promotion_nodes(program.graph_module)
        set_graph_module(program, fx_passes.remove_assertion_nodes(program.graph_module))
        return program

    with _replaced(exporter_core, "_prepare_exported_program_for_export", prepare):
        yield


class _KnownValues(type_promotion._TypePromotionInterpreter):
    """Interpreter that reads node values recorded by `torch.export` instead of computing them again.

    Type promotion inserts casts before operators, which does not change their output values.
    """

    def run_node(self, n: torch.fx.Node) -> Any:
        if n.op != "call_function" or "val" not in n.meta:
            return super().run_node(n)
        if rule := type_promotion.get_type_promotion_rule(n, self.type_promotion_table):
            with self._set_current_node(n):
                self._maybe_promote_node(n, rule)
        return n.meta["val"]


@contextmanager
def _values_that_are_known() -> Iterator[None]:
    """Find types to promote without running the model again with fake tensors.

    This can go when `InsertTypePromotion` runs only the nodes that it changed.
    """
    with _replaced(type_promotion, "_TypePromotionInterpreter", _KnownValues):
        yield


class _Signature:
    """Attributes that onnxscript reads from a translation's source: the domain directly, all others by parsing."""

    def __init__(self, function: values.TracedOnnxFunction, parse: Callable[[values.TracedOnnxFunction], Any]) -> None:
        self.domain = function.opset.domain
        self._parsed = lambda: parse(function)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parsed(), name)


@contextmanager
def _registry_without_sources() -> Iterator[None]:
    """List the translations of onnxscript without parsing their sources.

    This can go when `get_torchlib_ops` reads a function's domain instead of its `function_ir`.
    """
    parsed = vars(values.TracedOnnxFunction)["function_ir"]
    quick = property(lambda function: _Signature(function, parsed.fget))
    with _replaced(values.TracedOnnxFunction, "function_ir", quick):
        yield


@contextmanager
def _replaced(owner: Any, name: str, replacement: Any) -> Iterator[None]:
    original = vars(owner)[name]
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        setattr(owner, name, original)


def _has_translation(node: torch.fx.Node, registry: Any) -> bool:
    if node.target in _SPLITS:
        return _parts(node) is not None
    return node.target in _REWRITES or (
        node.target not in _TRANSLATED_ONLY_DECOMPOSED and registry.is_registered(node.target)
    )


def _keep(graph: torch.fx.Graph, node: torch.fx.Node) -> None:
    del graph, node


def _drop(graph: torch.fx.Graph, node: torch.fx.Node) -> None:
    """Replace a node by its first argument, such as dropout in eval mode."""
    source = node.args[0]
    assert isinstance(source, torch.fx.Node)
    if any(user.op == "output" for user in node.users):
        # The program's signature refers to outputs by node name.
        node.target, node.args, node.kwargs = _aten.clone.default, (source,), {}
        return
    node.replace_all_uses_with(source)
    graph.erase_node(node)


def _retarget(target: Any) -> Any:
    def rewrite(graph: torch.fx.Graph, node: torch.fx.Node) -> None:
        del graph
        node.target = target

    return rewrite


def _to_contiguous_copy(graph: torch.fx.Graph, node: torch.fx.Node) -> None:
    """Make a copy contiguous. ONNX drops copies, but later views need a contiguous tensor."""
    del graph
    node.target = _aten.clone.default
    node.args, node.kwargs = node.args[:1], {"memory_format": torch.contiguous_format}


def _to_cast(graph: torch.fx.Graph, node: torch.fx.Node) -> None:
    """Replace any `aten.to` by a copy that only changes the dtype."""
    dtype = node.meta["val"].dtype
    source = node.args[0]
    assert isinstance(source, torch.fx.Node)
    if source.meta["val"].dtype == dtype:
        _drop(graph, node)
        return
    node.target = torch.ops.aten._to_copy.default
    node.args, node.kwargs = (source,), {"dtype": dtype}


def _parts(node: torch.fx.Node) -> tuple[int, list[tuple[int, int]]] | None:
    """Return the dimension of a split or chunk and the bounds of each part; `None` if its size is not fixed."""
    # `torch.fx` types node arguments loosely; the operator's schema says that these are integers.
    source, amount, *rest = node.args
    assert isinstance(source, torch.fx.Node)
    shape = source.meta["val"].shape
    dim = int(rest[0] if rest else node.kwargs.get("dim", 0)) % len(shape)  # type: ignore[arg-type]
    size = shape[dim]
    if (
        not isinstance(size, int)
        or not isinstance(amount, int)
        or any(user.target is not getitem for user in node.users)
    ):
        return None
    step = amount if node.target is _aten.split.Tensor else -(-size // amount)
    return dim, [(start, min(start + step, size)) for start in range(0, size, step)]


def _to_slices(graph: torch.fx.Graph, node: torch.fx.Node) -> None:
    """Replace each part of a split by a slice, as decomposing would."""
    found = _parts(node)
    assert found is not None
    dim, spans = found
    for part in list(node.users):
        start, end = spans[part.args[1]]  # type: ignore[index]
        part.target, part.args = _aten.slice.Tensor, (node.args[0], dim, start, end)
    graph.erase_node(node)


_aten = torch.ops.aten

_SPLITS = frozenset({_aten.split.Tensor, _aten.chunk.default})

_TRANSLATED_ONLY_DECOMPOSED = frozenset({_aten.unbind.int})
"""Operators whose translation gives an ONNX sequence, on which `getitem` fails; decomposed, they are slices."""

_REWRITES = {
    _aten.split.Tensor: _to_slices,
    _aten.chunk.default: _to_slices,
    _aten.dropout.default: _drop,
    _aten.contiguous.default: _to_contiguous_copy,
    _aten.to.device: _to_cast,
    _aten.to.dtype: _to_cast,
    _aten.to.dtype_layout: _to_cast,
    _aten.to.other: _to_cast,
    _aten.__and__.Tensor: _retarget(_aten.bitwise_and.Tensor),
    _aten.__or__.Tensor: _retarget(_aten.bitwise_or.Tensor),
}
