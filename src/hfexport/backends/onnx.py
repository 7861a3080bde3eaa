"""The ONNX back end: capture without weights, tidy the graph, stream the weights into the file, check it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir
import torch

from hfexport.backends.base import Artifact, ExportJob
from hfexport.backends.onnx_capture import MODEL_PREFIX, capture
from hfexport.backends.onnx_passes import TRANSPOSED, finish_graph, metadata_for
from hfexport.backends.onnx_writer import SINGLE_FILE_LIMIT_BYTES, Weight, write_model
from hfexport.errors import ExportError
from hfexport.models import load_model
from hfexport.parts import flat_model

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OnnxBackend"]

_SMALL_BYTES = 1024
"""Tensors up to this size stay in the graph, where shape inference can read them."""


class OnnxBackend:
    """Makes `model.onnx` (or another graph's file), its weights in `model.onnx_data` when they pass 2 GB or when asked."""

    format = "onnx"

    def export(self, job: ExportJob) -> Artifact:
        program = capture(job.config, job.dtype, job.opset, like=job.model)
        model = program.model
        constants = program.exported_program.constants if program.exported_program is not None else {}
        finish_graph(model, job.config)
        metadata_for(model, job.metadata)
        weights = _weights(model, job, constants)
        external = job.external_data or sum(weight.size_bytes for weight in weights) > SINGLE_FILE_LIMIT_BYTES
        opset = model.graph.opset_imports[""]
        nodes = len(list(model.graph))
        files = _write(model, weights, job, external)
        return Artifact(
            format=self.format,
            path=files[0],
            files=tuple(files),
            details={"opset": opset, "nodes": nodes, "external_data": external, "ir_version": model.ir_version},
        )


def _weights(model: ir.Model, job: ExportJob, constants: Mapping[str, object]) -> list[Weight]:
    """Every initializer with the tensor it streams from; ones that share a tensor become one."""
    whole = job.model if job.model is not None else load_model(job.checkpoint, job.config, job.dtype)
    loaded = flat_model(whole, job.config).model
    tensors = {
        **dict(loaded.named_parameters(remove_duplicate=False)),
        **dict(loaded.named_buffers(remove_duplicate=False)),
    }
    found: dict[tuple[int, tuple[int, ...], bool], ir.Value] = {}
    weights: list[Weight] = []
    for name, value in list(model.graph.initializers.items()):
        if not value.uses():
            del model.graph.initializers[name]
            continue
        transposed = bool(value.meta.get(TRANSPOSED))
        source = tensors.get(name.removeprefix(MODEL_PREFIX)) if name.startswith(MODEL_PREFIX) else None
        if source is None:
            source = _constant(name, value, constants)
        key = (source.data_ptr(), tuple(source.shape), transposed)
        if key in found and source.numel() > 1:
            value.replace_all_uses_with(found[key])
            del model.graph.initializers[name]
            continue
        found[key] = value
        assert value.dtype is not None
        assert value.shape is not None
        weights.append(
            Weight(
                name.removeprefix(MODEL_PREFIX),
                int(value.dtype),
                tuple(value.shape.numpy()),
                source,
                _TORCH_DTYPES[value.dtype],
                transposed,
            )
        )
        del model.graph.initializers[name]
        value.name = name.removeprefix(MODEL_PREFIX)
        model.graph.initializers[value.name] = value
    return weights


def _constant(name: str, value: ir.Value, constants: Mapping[str, object]) -> torch.Tensor:
    """The data of a tensor that `forward` makes from nothing, which a fake tensor keeps as its constant."""
    tensor = constants.get(name)
    tensor = getattr(tensor, "constant", None) if hasattr(tensor, "fake_mode") else tensor
    if not isinstance(tensor, torch.Tensor):
        raise ExportError(
            f"ONNX: the graph needs a tensor {name} of shape {value.shape} that is no weight of the checkpoint",
            remedy="The architecture computes it while it is traced; please report it with config.json.",
        )
    return tensor


_TORCH_DTYPES = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.DOUBLE: torch.float64,
    ir.DataType.INT64: torch.int64,
    ir.DataType.INT32: torch.int32,
    ir.DataType.BOOL: torch.bool,
}


def _write(model: ir.Model, weights: list[Weight], job: ExportJob, external: bool) -> list:  # type: ignore[type-arg]
    """Serialise the graph, check it, and write it with its weights."""
    for value in model.graph.initializers.values():
        value.const_value = None
    initializers = dict(model.graph.initializers)
    # A graph whose weights are inputs is valid on its own, so it can be checked before any weight is read.
    model.graph.initializers.clear()
    graph_inputs = list(model.graph.inputs)
    model.graph.inputs.extend(initializers.values())
    skeleton = ir.serde.serialize_model(model)
    try:
        onnx.checker.check_model(skeleton, full_check=False)
    except onnx.checker.ValidationError as error:
        raise ExportError(
            f"ONNX: the graph is not valid: {error}", remedy="Please report it with config.json."
        ) from error
    del skeleton.graph.input[len(graph_inputs) :]
    return write_model(skeleton, weights, job.folder / f"{job.config.graph}.onnx", job.advance, external=external)
