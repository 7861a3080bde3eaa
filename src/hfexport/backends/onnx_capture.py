"""From a model without weights to an ONNX graph: `torch.export` under fake tensors, lowered by `torch.onnx`.

The patches that make models of transformers exportable are those of `transformers.exporters`, kept by their makers.
"""

from __future__ import annotations

import gc
import io
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from operator import getitem
from typing import TYPE_CHECKING, Any

import torch
import torch.fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.onnx._internal.exporter import _core, _fx_passes
from transformers.exporters import exporter_onnx
from transformers.exporters import utils as exporter_utils

from hfexport.backends.patches import model_patches
from hfexport.backends.traceable import make_traceable
from hfexport.errors import ExportError
from hfexport.models import MODEL_FAILURES, empty_like, empty_model, quiet
from hfexport.parts import flat_model
from hfexport.probes import trace_inputs

if TYPE_CHECKING:
    from hfexport.export_config import ExportConfig, TensorSpec

__all__ = ["MODEL_PREFIX", "capture"]

MODEL_PREFIX = "model."
"""What `FlatModel` puts before the names of the model's parameters."""


def capture(
    config: ExportConfig, dtype: str, opset: int, *, like: torch.nn.Module | None = None
) -> torch.onnx.ONNXProgram:
    """The graph of `config`'s model, with initializers that have names, shapes and no data.

    Args:
        config: inputs and outputs with named axes.
        dtype: `fp32` or `fp16`.
        opset: ONNX opset.
        like: a model in memory, whose class and config are taken instead of those for `config`'s task.

    Raises:
        ExportError: the model cannot be captured or lowered.
    """
    free_axes = config.free_axes
    shapes = tuple(_dynamic_dims(spec, free_axes) for spec in config.inputs)
    fake_mode = FakeTensorMode(allow_non_fake_inputs=True)
    with _undisturbed(), torch.no_grad():
        empty = empty_model(config, dtype, fake_mode) if like is None else empty_like(like, fake_mode)
        make_traceable(empty)
        model = flat_model(empty, config)
        example = tuple(torch.from_numpy(array) for array in trace_inputs(config, dtype).values())
        with fake_mode, _patches("onnx"), _patches("dynamo"), model_patches(config.config.model_type):
            try:
                program = torch.export.export(model, args=example, dynamic_shapes=(shapes,), strict=False)
                exporter_utils.apply_fx_node_fixes("onnx", program.graph_module)
                _squeeze_fixed_axes(program.graph_module)
                _sum_up_in_double(program.graph_module)
                with _light_preparation():
                    onnx_program = torch.onnx.export(
                        program,
                        args=(),
                        input_names=[spec.name for spec in config.inputs],
                        output_names=[spec.name for spec in config.outputs],
                        custom_translation_table=exporter_onnx._ONNX_TRANSLATION_TABLE,
                        opset_version=opset,
                        optimize=False,
                        verbose=False,
                    )
            except MODEL_FAILURES as error:
                raise ExportError(
                    f"ONNX: {type(model.model).__name__} cannot be captured for task {config.task.name}: {_root(error)}",
                    remedy="This is likely a limit of torch.export for it; please report it with config.json.",
                ) from error
        if onnx_program is None:
            raise ExportError(f"ONNX: torch.onnx gave no program for task {config.task.name}")
        exporter_onnx.apply_onnx_ir_fixes(onnx_program)
    return onnx_program


@contextmanager
def _patches(exporter: str) -> Iterator[None]:
    """Apply the exporters' patches to whatever is loaded.

    Their own `apply_patches` first imports every architecture that has one, three dozen of them, whichever model is
    exported. This can go when they leave alone what nobody has imported.
    """
    loaded = [patch for patch in exporter_utils._PATCHES.get(exporter, []) if _is_loaded(patch[0])]
    resolved = [
        (target, attribute, patch)
        for path, attribute, patch in loaded
        if (target := exporter_utils.import_dotted_path(path, missing_ok=True)) is not None
    ]
    with exporter_utils.patch_attributes(resolved):
        yield


def _is_loaded(path: str) -> bool:
    """Whether what a dotted path names can matter: its module is imported, or it is no model of transformers."""
    parts = path.split(".")
    return parts[:2] != ["transformers", "models"] or ".".join(parts[:4]) in sys.modules


def _root(error: BaseException) -> str:
    """Where a chain of errors began, in one line: the exporter wraps each in advice to whoever develops it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _dynamic_dims(spec: TensorSpec, free_axes: Sequence[str]) -> dict[int, Any]:
    """Which dimensions of an input `torch.export` must leave open."""
    return {
        index: torch.export.Dim.DYNAMIC
        for index, axis in enumerate(spec.axes)
        if isinstance(axis, str) and any(part in free_axes for part in axis.split(" + "))
    }


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Capture without garbage collection, stack traces for every node (a quarter of the time), or chatter."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.onnx", "onnxscript", "transformers")]
    levels = [logger.level for logger in loggers]
    traces = torch.fx.config.do_not_emit_stack_traces
    collecting = gc.isenabled()
    with ExitStack() as stack:
        stack.enter_context(quiet())
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(redirect_stdout(io.StringIO()))
        stack.enter_context(redirect_stderr(io.StringIO()))
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        torch.fx.config.do_not_emit_stack_traces = True
        gc.disable()
        try:
            yield
        finally:
            torch.fx.config.do_not_emit_stack_traces = traces
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            if collecting:
                gc.enable()


def _squeeze_fixed_axes(module: torch.fx.GraphModule) -> None:
    """Name the axes of every `squeeze()`: those that are always one.

    ONNX would squeeze whatever is one at run time, a batch of one as well, as mBART's `shift_tokens_right` showed:
    https://github.com/pytorch/pytorch/issues/109292. This can go when the translation of `aten.squeeze` names axes.
    """
    for node in module.graph.nodes:
        if node.target is _aten.squeeze.default:
            source = node.args[0]
            axes = [axis for axis, size in enumerate(source.meta["val"].shape) if isinstance(size, int) and size == 1]
            node.target, node.args = _aten.squeeze.dims, (source, axes)


def _sum_up_in_double(module: torch.fx.GraphModule) -> None:
    """Have every `cumsum` of floats accumulate in double, as torch does on CPU; ONNX Runtime accumulates in floats.

    LongT5 counts blocks by rounding such a sum down, where the last bit makes another block of it. Torch's precision:
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
    """Lower without `run_decompositions` where every operator has a translation as it is.

    Decomposing traces the whole model a second time and takes longer than all other steps of lowering together, for the
    same graph: https://github.com/pytorch/pytorch/issues/150523 asks for an export that needs no decomposition table.
    This can go when `torch.onnx` skips operators that need none. A graph with any other operator is decomposed as ever.
    """
    thorough = _core._prepare_exported_program_for_export

    def prepare(program: torch.export.ExportedProgram, *, registry: Any) -> torch.export.ExportedProgram:
        graph = program.graph_module.graph
        nodes = [node for node in graph.nodes if node.op == "call_function"]
        if any(isinstance(module, torch.fx.GraphModule) for module in program.graph_module.children()):
            return thorough(program, registry=registry)
        operators = [node for node in nodes if isinstance(node.target, torch._ops.OpOverload)]
        if any(not _has_translation(node, registry) for node in operators):
            return thorough(program, registry=registry)
        for node in nodes:
            # `apply_fx_node_fixes` puts out-of-place operators for in-place ones, without saying of what shape.
            if "val" not in node.meta and node.args and isinstance(node.args[0], torch.fx.Node):
                node.meta["val"] = node.args[0].meta["val"]
            _REWRITES.get(node.target, _keep)(graph, node)
        graph.eliminate_dead_code()
        _fx_passes.insert_type_promotion_nodes(program.graph_module)
        program._graph_module = _fx_passes.remove_assertion_nodes(program.graph_module)
        return program

    _core._prepare_exported_program_for_export = prepare  # type: ignore[assignment]
    try:
        yield
    finally:
        _core._prepare_exported_program_for_export = thorough


def _has_translation(node: torch.fx.Node, registry: Any) -> bool:
    if node.target in _SPLITS:
        return _parts(node) is not None
    return node.target in _REWRITES or (
        node.target not in _TRANSLATED_ONLY_DECOMPOSED and registry.is_registered(node.target)
    )


def _keep(graph: torch.fx.Graph, node: torch.fx.Node) -> None:
    del graph, node


def _drop(graph: torch.fx.Graph, node: torch.fx.Node) -> None:
    """Replace a node by its first argument: dropout in eval mode."""
    source = node.args[0]
    assert isinstance(source, torch.fx.Node)
    if any(user.op == "output" for user in node.users):
        # The program's signature knows its outputs by the names of their nodes.
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
    """A copy is nothing in ONNX, but views that follow are only possible of one that is contiguous."""
    del graph
    node.target = _aten.clone.default
    node.args, node.kwargs = node.args[:1], {"memory_format": torch.contiguous_format}


def _to_cast(graph: torch.fx.Graph, node: torch.fx.Node) -> None:
    """Write any `aten.to` as the copy it is, which keeps only the dtype."""
    dtype = node.meta["val"].dtype
    source = node.args[0]
    assert isinstance(source, torch.fx.Node)
    if source.meta["val"].dtype == dtype:
        _drop(graph, node)
        return
    node.target = torch.ops.aten._to_copy.default
    node.args, node.kwargs = (source,), {"dtype": dtype}


def _parts(node: torch.fx.Node) -> tuple[int, list[tuple[int, int]]] | None:
    """Of a split or chunk: the dimension, and where each part starts and ends; `None` if its size is not fixed."""
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
    """Take each part of a split by a slice of its own, as decomposing would."""
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
"""Their translation gives an ONNX sequence, of which `getitem` then takes no part; decomposed, they are slices."""

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
