"""Capture the graphs of an ONNX file as a template, and find the tensor of the model that fills each weight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec
import onnx
import onnx_ir as ir
import torch

from hfexport.backends.onnx.capture import MODEL_PREFIX, capture
from hfexport.backends.onnx.merge import merge_branches
from hfexport.backends.onnx.older_opset import LOWEST_WRITTEN, to_older_opset
from hfexport.backends.onnx.passes import TRANSPOSED, finish_graph
from hfexport.backends.onnx.template import Skeleton, with_inputs
from hfexport.backends.origins import StoredWeight
from hfexport.backends.tensors import Tensors, named_tensors, tensor_bytes
from hfexport.errors import ExportError
from hfexport.modeling.wrappers import flat_model

if TYPE_CHECKING:
    from hfexport.backends.base import ExportJob

__all__ = ["capture_skeleton"]


def capture_skeleton(
    job: ExportJob, whole: torch.nn.Module, opset: int, like: torch.nn.Module | None = None
) -> tuple[Skeleton, list[Tensors]]:
    """Capture the graphs of the model, and find the origin of each of their weights.

    Args:
        job: the export.
        whole: model with its weights.
        opset: ONNX opset.
        like: model in memory whose class and config replace those of the job's task.

    Returns:
        The template, and the tensors of each of its graphs.

    Raises:
        ExportError: the model cannot be captured.
    """
    branches = job.config.branches
    programs = [capture(config, job.dtype, max(opset, LOWEST_WRITTEN), loaded=whole, like=like) for config in branches]
    tensors: list[Tensors] = []
    needed: list[_Needed] = []
    for branch, (config, program) in enumerate(zip(branches, programs, strict=True)):
        to_older_opset(program.model, opset)
        finish_graph(program.model, config)
        tensors.append(named_tensors(flat_model(whole, config).model))
        constants = program.exported_program.constants if program.exported_program is not None else {}
        needed.extend(_needed(program.model, config.graph, branch, tensors[-1], constants, needed))
    graphs = [program.model.graph for program in programs]
    nodes, operators = sum(len(list(graph)) for graph in graphs), _operators(graphs)
    parts = [_without_weights(program.model) for program in programs]
    model = parts[0] if len(parts) == 1 else merge_branches(parts[0], parts[1], job.config)
    skeleton = Skeleton(
        model.SerializeToString(deterministic=True), nodes, operators, tuple(one.weight for one in needed)
    )
    _check(skeleton)
    return skeleton, tensors


@dataclass(frozen=True)
class _Needed:
    """A weight of a captured graph, and the tensor with its data."""

    weight: StoredWeight
    source: torch.Tensor

    @property
    def key(self) -> tuple[int, tuple[int, ...], bool]:
        """Return the data's address, its shape and `transposed`; equal for initializers that can be merged."""
        return self.source.data_ptr(), tuple(self.source.shape), self.weight.transposed


def _operators(graphs: Sequence[ir.Graph]) -> dict[str, int]:
    """Count the nodes of graphs and of the graphs inside them, by operator and its domain."""
    nodes = (node for graph in graphs for node in ir.traversal.RecursiveGraphIterator(graph))
    counts = Counter(f"{node.domain}.{node.op_type}".lstrip(".") for node in nodes)
    return dict(sorted(counts.items()))


def _needed(
    model: ir.Model,
    graph: str,
    branch: int,
    tensors: Tensors,
    constants: Mapping[str, object],
    earlier: Sequence[_Needed],
) -> list[_Needed]:
    """Find the source tensor of every initializer of `model`, and merge initializers that share a tensor.

    Args:
        model: captured graph; its initializers are renamed to their tensors' names.
        graph: name of the graph.
        branch: its index in the file.
        tensors: parameters and buffers of the captured model with its weights, by name.
        constants: tensors that `forward` created during capture.
        earlier: weights of graphs in the same file, which are reused instead of written again.

    Returns:
        The weights that are not in `earlier`.
    """
    initializers = model.graph.initializers
    shared = {one.key: one.weight.name for one in earlier if one.source.numel() > 1}
    taken = {one.weight.name for one in earlier}
    found: dict[tuple[int, tuple[int, ...], bool], ir.Value] = {}
    needed: list[_Needed] = []
    for name, value in list(initializers.items()):
        del initializers[name]
        if not value.uses():
            continue
        one = _origin(name, value, branch, tensors, constants)
        if one.key in found and one.source.numel() > 1:
            value.replace_all_uses_with(found[one.key])
            continue
        found[one.key] = value
        if one.key in shared:
            value.name = shared[one.key]
        else:
            value.name = f"{graph}.{one.weight.name}" if one.weight.name in taken else one.weight.name
            needed.append(replace(one, weight=msgspec.structs.replace(one.weight, name=value.name)))
        initializers[value.name] = value
    return needed


def _origin(name: str, value: ir.Value, branch: int, tensors: Tensors, constants: Mapping[str, object]) -> _Needed:
    """Return the source tensor of the initializer `name`."""
    short = name.removeprefix(MODEL_PREFIX)
    source = tensors.get(short) if name.startswith(MODEL_PREFIX) else None
    known = source is not None
    if source is None:
        source = _constant(name, value, constants)
    assert value.dtype is not None
    assert value.shape is not None
    weight = StoredWeight(
        short,
        int(value.dtype),
        tuple(value.shape.numpy()),
        branch,
        short if known else "",
        b"" if known else tensor_bytes(source, int(value.dtype)),
        bool(value.meta.get(TRANSPOSED)),
    )
    return _Needed(weight, source)


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


def _without_weights(model: ir.Model) -> onnx.ModelProto:
    """Return the model without its weights, in the lowest IR version that its opsets allow.

    A runtime refuses every file of a newer IR version than its own, regardless of its contents.
    """
    model.graph.initializers.clear()
    skeleton = ir.serde.serialize_model(model)
    skeleton.ir_version = onnx.helper.find_min_ir_version_for(skeleton.opset_import, ignore_unknown=True)
    return skeleton


def _check(skeleton: Skeleton) -> None:
    """Check the graph before any weight is read; it is a valid model if its weights are treated as inputs."""
    try:
        onnx.checker.check_model(with_inputs(skeleton), full_check=False)
    except onnx.checker.ValidationError as error:
        raise ExportError(
            f"ONNX: the graph is not valid: {error}", remedy="Please report it with config.json."
        ) from error
