"""Capture a model without weights as an ONNX graph: `torch.export` with fake tensors, then lowering.

The patches that make transformers models exportable are those of `transformers.exporters`, maintained upstream.
"""

from __future__ import annotations

import gc
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING

import torch
import torch.fx

from hfexport._internal.upstream import exporters
from hfexport._internal.upstream.torch_core import FakeTensorMode
from hfexport._internal.upstream.torch_shapes import shared_symbols
from hfexport.backends.onnx.lowering import lower
from hfexport.backends.patches import model_patches, model_translations, model_types
from hfexport.errors import MODEL_FAILURES, ExportError, first_line
from hfexport.export_config import names_in
from hfexport.export_config.probes import trace_inputs
from hfexport.modeling.load import empty_like, empty_model, quiet
from hfexport.modeling.traceable import make_traceable
from hfexport.modeling.wrappers import flat_model

if TYPE_CHECKING:
    from hfexport.export_config import ExportConfig

__all__ = ["MODEL_PREFIX", "capture"]

MODEL_PREFIX = "model."
"""Prefix that `FlatModel` adds to the names of the model's parameters."""


def capture(
    config: ExportConfig,
    dtype: str,
    opset: int,
    *,
    loaded: torch.nn.Module | None = None,
    like: torch.nn.Module | None = None,
) -> torch.onnx.ONNXProgram:
    """Return the ONNX graph of `config`'s model; its initializers have names and shapes but no data.

    Args:
        config: inputs and outputs with named axes.
        dtype: `fp32` or `fp16`.
        opset: ONNX opset.
        loaded: model with its weights, which decides which weights are tied.
        like: model in memory whose class and config replace those of `config`'s task.

    Raises:
        ExportError: the model cannot be captured or lowered.
    """
    axes = {
        (number, index): axis
        for number, spec in enumerate(config.inputs)
        for index, axis in enumerate(spec.axes)
        if isinstance(axis, str) and any(name in config.free_axes for name in names_in(axis))
    }
    shapes = tuple(
        {index: torch.export.Dim.DYNAMIC for index in range(len(spec.axes)) if (number, index) in axes}
        for number, spec in enumerate(config.inputs)
    )
    fake_mode = FakeTensorMode(allow_non_fake_inputs=True)
    with _undisturbed(), torch.no_grad():
        empty = empty_model(config, dtype, fake_mode, loaded=loaded) if like is None else empty_like(like, fake_mode)
        make_traceable(empty)
        model = flat_model(empty, config)
        example = tuple(torch.from_numpy(array) for array in trace_inputs(config, dtype).values())
        with fake_mode, _patches("onnx"), _patches("dynamo"), model_patches(*model_types(config.config)):
            try:
                with shared_symbols(axes):
                    program = torch.export.export(model, args=example, dynamic_shapes=(shapes,), strict=False)
                exporters.apply_fx_node_fixes("onnx", program.graph_module)
                own = model_translations(config.config.model_type)
                onnx_program = lower(program, config, opset, {**exporters.translations(), **own})
            except MODEL_FAILURES as error:
                raise ExportError(
                    f"ONNX: {type(model.model).__name__} cannot be captured for task {config.task.name}: {_root(error)}",
                    remedy="This is likely a limit of torch.export for it; please report it with config.json.",
                ) from error
        exporters.apply_onnx_ir_fixes(onnx_program)
    return onnx_program


@contextmanager
def _patches(exporter: str) -> Iterator[None]:
    """Apply the exporters' patches to modules that are already imported.

    The exporters' `apply_patches` imports every architecture that has a patch, about 36, for any model. This can go
    when it skips modules that are not imported.
    """
    loaded = [patch for patch in exporters.patches_of(exporter) if _is_loaded(patch[0])]
    resolved = [
        (target, attribute, patch)
        for path, attribute, patch in loaded
        if (target := exporters.import_dotted_path(path, missing_ok=True)) is not None
    ]
    inherited = {(id(target), name): target for target, name, _ in resolved if name not in vars(target)}
    try:
        with exporters.patch_attributes(resolved):
            yield
    finally:
        # An attribute inherited from a base class would remain on the class after being restored.
        for (_, name), target in inherited.items():
            if name in vars(target):
                delattr(target, name)


def _is_loaded(path: str) -> bool:
    """Return whether a dotted path is relevant: its module is imported, or is not a transformers model."""
    parts = path.split(".")
    return parts[:2] != ["transformers", "models"] or ".".join(parts[:4]) in sys.modules


def _root(error: BaseException) -> str:
    """Return the first error of a chain in one line; the exporter wraps it in advice to its own developers."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error, limit=200, named=True)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Capture without garbage collection, per-node stack traces (a quarter of the time), and log messages."""
    names = ("torch", "torch.onnx", "torch._subclasses.fake_tensor", "onnxscript", "transformers")
    loggers = [logging.getLogger(name) for name in names]
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
            logger.setLevel(logging.CRITICAL)  # errors are raised anyway
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
