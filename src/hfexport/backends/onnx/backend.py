"""ONNX back end: capture a model without weights, simplify the graph, stream the weights into the file, check it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import onnx
import onnx_ir as ir
import torch

from hfexport.backends.base import Artifact, ExportJob
from hfexport.backends.onnx.capture import MODEL_PREFIX, capture
from hfexport.backends.onnx.merge import merge_branches
from hfexport.backends.onnx.older_opset import LOWEST_WRITTEN, to_older_opset
from hfexport.backends.onnx.passes import TRANSPOSED, finish_graph, metadata_for
from hfexport.backends.onnx.writer import SINGLE_FILE_LIMIT_BYTES, Weight, write_model
from hfexport.errors import ExportError
from hfexport.export_config.fixed import fix_graphs
from hfexport.modeling.load import load_model
from hfexport.modeling.wrappers import flat_model
from hfexport.runtime import DESCRIPTION_FILE, Description

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hfexport.export_config import ExportConfig, Layout

__all__ = ["OnnxBackend"]


@dataclass(frozen=True)
class OnnxBackend:
    """Back end that writes `model.onnx` (or another graph's file), with external weights above 2 GB or on request.

    Attributes:
        opset: ONNX opset; `None` for the architecture's default.
        external_data: write weights to a separate file even below 2 GB.
        fixed: sizes of free axes to fix, by axis.
        model: model in memory whose weights are exported instead of a checkpoint's.
    """

    opset: int | None = None
    external_data: bool = False
    fixed: Mapping[str, int] = field(default_factory=dict)
    model: torch.nn.Module | None = None
    format: ClassVar[str] = "onnx"
    can_fix_sizes: ClassVar[bool] = False

    def graphs(self, family: ExportConfig, layout: Layout | None) -> tuple[ExportConfig, ...]:
        """Return the graphs of a model, with fixed sizes if there are any.

        The decoders of an encoder-decoder are branches of one graph if their axes are free.

        Raises:
            InputsError: the graphs have no such axes, or the model does not take the sizes.
        """
        if self.fixed:
            return fix_graphs(family.graphs(layout or "split"), self.fixed)
        return family.graphs(layout or "merged")

    def export(self, job: ExportJob) -> Artifact:
        """Capture, lower and simplify each branch, then write the graph and stream its weights."""
        whole = self.model if self.model is not None else load_model(job.checkpoint, job.config, job.dtype)
        graphs = [self._captured(job, config, whole) for config in job.config.branches]
        weights: list[Weight] = []
        for graph in graphs:
            weights.extend(_weights(graph, flat_model(whole, graph.config).model, weights))
        size_bytes = sum(weight.size_bytes for weight in weights)
        external = self.external_data or size_bytes > SINGLE_FILE_LIMIT_BYTES
        skeletons = [_skeleton(graph.model) for graph in graphs]
        skeleton = skeletons[0] if len(graphs) == 1 else merge_branches(skeletons[0], skeletons[1], job.config)
        _check(skeleton, weights)
        path = job.folder / f"{job.config.graph}.onnx"
        with job.progress(path.name, size_bytes) as advance:
            files = write_model(skeleton, weights, path, advance, external=external)
        return Artifact(
            format=self.format,
            path=files[0],
            files=tuple(files),
            details={
                "opset": graphs[0].model.graph.opset_imports[""],
                "nodes": sum(len(list(graph.model.graph)) for graph in graphs),
                "operators": _operators([graph.model.graph for graph in graphs]),
                "external_data": external,
                "ir_version": skeleton.ir_version,
            },
            fixed_sizes=dict(job.config.fixed_sizes),
            config=job.config,
        )

    def _captured(self, job: ExportJob, config: ExportConfig, whole: torch.nn.Module) -> _Graph:
        opset = self.opset if self.opset is not None else config.default_opset
        program = capture(config, job.dtype, max(opset, LOWEST_WRITTEN), loaded=whole, like=self.model)
        to_older_opset(program.model, opset)
        finish_graph(program.model, config)
        metadata_for(program.model, job.metadata)
        if config.fixed_sizes:
            description = Description.of(config, job.dtype, fixed_sizes=config.fixed_sizes, metadata=job.metadata)
            program.model.metadata_props[DESCRIPTION_FILE] = json.dumps(description.to_dict())
        constants = program.exported_program.constants if program.exported_program is not None else {}
        return _Graph(config, program.model, constants)


@dataclass(frozen=True)
class _Graph:
    """A captured graph, and the data of tensors that `forward` created during capture."""

    config: ExportConfig
    model: ir.Model
    constants: Mapping[str, object]


def _operators(graphs: Sequence[ir.Graph]) -> dict[str, int]:
    """Count the nodes of graphs and of the graphs inside them, by operator and its domain."""
    nodes = (node for graph in graphs for node in ir.traversal.RecursiveGraphIterator(graph))
    counts = Counter(f"{node.domain}.{node.op_type}".lstrip(".") for node in nodes)
    return dict(sorted(counts.items()))


def _weights(graph: _Graph, loaded: torch.nn.Module, earlier: Sequence[Weight]) -> list[Weight]:
    """Find the source tensor of every initializer of `graph`, and merge initializers that share a tensor.

    Args:
        graph: captured graph; its initializers are renamed to their tensors' names.
        loaded: the captured model with its weights.
        earlier: weights of graphs in the same file, which are reused instead of written again.

    Returns:
        The weights that are not in `earlier`.
    """
    tensors = {
        **dict(loaded.named_parameters(remove_duplicate=False)),
        **dict(loaded.named_buffers(remove_duplicate=False)),
    }
    initializers = graph.model.graph.initializers
    shared = {weight.key: weight.name for weight in earlier if weight.source.numel() > 1}
    taken = {weight.name for weight in earlier}
    found: dict[tuple[int, tuple[int, ...], bool], ir.Value] = {}
    weights: list[Weight] = []
    for name, value in list(initializers.items()):
        del initializers[name]
        if not value.uses():
            continue
        weight = _weight(name, value, tensors, graph.constants)
        if weight.key in found and weight.source.numel() > 1:
            value.replace_all_uses_with(found[weight.key])
            continue
        found[weight.key] = value
        if weight.key in shared:
            value.name = shared[weight.key]
        else:
            value.name = f"{graph.config.graph}.{weight.name}" if weight.name in taken else weight.name
            weights.append(replace(weight, name=value.name))
        initializers[value.name] = value
    return weights


def _weight(name: str, value: ir.Value, tensors: Mapping[str, torch.Tensor], constants: Mapping[str, object]) -> Weight:
    """Return the source tensor of the initializer `name`."""
    short = name.removeprefix(MODEL_PREFIX)
    source = tensors.get(short) if name.startswith(MODEL_PREFIX) else None
    if source is None:
        source = _constant(name, value, constants)
    assert value.dtype is not None
    assert value.shape is not None
    dtype, shape = value.dtype, tuple(value.shape.numpy())
    return Weight(short, int(dtype), shape, source, _TORCH_DTYPES[dtype], bool(value.meta.get(TRANSPOSED)))


def _constant(name: str, value: ir.Value, constants: Mapping[str, object]) -> torch.Tensor:
    """Return the data of a tensor that `forward` creates from constants, which the fake tensor stores."""
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


def _skeleton(model: ir.Model) -> onnx.ModelProto:
    """Return the model without its weights, in the lowest IR version that its opsets allow.

    A runtime refuses every file of a newer IR version than its own, regardless of its contents.
    """
    model.graph.initializers.clear()
    skeleton = ir.serde.serialize_model(model)
    skeleton.ir_version = onnx.helper.find_min_ir_version_for(skeleton.opset_import, ignore_unknown=True)
    return skeleton


def _check(skeleton: onnx.ModelProto, weights: Sequence[Weight]) -> None:
    """Check the graph before any weight is read; it is a valid model if its weights are treated as inputs."""
    checked = onnx.ModelProto()
    checked.CopyFrom(skeleton)
    checked.graph.input.extend(
        onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.shape) for weight in weights
    )
    try:
        onnx.checker.check_model(checked, full_check=False)
    except onnx.checker.ValidationError as error:
        raise ExportError(
            f"ONNX: the graph is not valid: {error}", remedy="Please report it with config.json."
        ) from error
