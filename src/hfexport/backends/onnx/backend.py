"""ONNX back end: capture a model without weights, simplify the graph, stream the weights into the file, check it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import msgspec
import onnx
import onnx_ir as ir
import torch

from hfexport.backends.base import Artifact, ExportJob
from hfexport.backends.onnx.capture import MODEL_PREFIX, capture
from hfexport.backends.onnx.merge import merge_branches
from hfexport.backends.onnx.older_opset import LOWEST_WRITTEN, to_older_opset
from hfexport.backends.onnx.passes import TRANSPOSED, finish_graph, set_metadata
from hfexport.backends.onnx.targets import TARGETS
from hfexport.backends.onnx.template import (
    Skeleton,
    StoredWeight,
    Tensors,
    decode,
    encode,
    fill,
    named_tensors,
    refuse_misfit,
    tensor_bytes,
    tied_names,
    with_inputs,
)
from hfexport.backends.onnx.writer import SINGLE_FILE_LIMIT_BYTES, write_model
from hfexport.backends.templates import template_key
from hfexport.errors import ExportError
from hfexport.export_config.fixed import fix_graphs
from hfexport.modeling.load import load_model
from hfexport.modeling.wrappers import flat_model
from hfexport.runtime import DESCRIPTION_FILE, Description

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hfexport.backends.templates import Templates
    from hfexport.export_config import ExportConfig, Layout

__all__ = ["OnnxBackend"]


def _tell_nobody(message: str) -> None:
    del message


@dataclass(frozen=True)
class OnnxBackend:
    """Back end that writes `model.onnx` (or another graph's file), with external weights above 2 GB or on request.

    Attributes:
        opset: ONNX opset; `None` for the architecture's default.
        external_data: write weights to a separate file even below 2 GB.
        fixed: sizes of free axes to fix, by axis.
        targets: names of the consumers that must be able to load the graphs.
        model: model in memory whose weights are exported instead of a checkpoint's.
        templates: graph templates to use and to add to; `None` for none.
        note: called with notes for the user.
    """

    opset: int | None = None
    external_data: bool = False
    fixed: Mapping[str, int] = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    model: torch.nn.Module | None = None
    templates: Templates | None = None
    note: Callable[[str], None] = _tell_nobody
    format: ClassVar[str] = "onnx"
    can_fix_sizes: ClassVar[bool] = False

    def graphs(self, family: ExportConfig, layout: Layout | None) -> tuple[ExportConfig, ...]:
        """Return the graphs of a model, with fixed sizes if there are any.

        The decoders of an encoder-decoder are branches of one graph if their axes are free.

        Raises:
            InputsError: the graphs have no such axes, or the model does not take the sizes.
            UnsupportedError: a target cannot load the graphs.
        """
        graphs = family.graphs(layout or ("split" if self.fixed else "merged"))
        if self.fixed:
            graphs = fix_graphs(graphs, self.fixed)
        for name in self.targets:
            TARGETS[name].check(graphs)
        return graphs

    def export(self, job: ExportJob) -> Artifact:
        """Capture and simplify the graph, or read it from a template; then write it and stream its weights."""
        skeleton, tensors, from_template = self._skeleton(job)
        weights = fill(skeleton, tensors)
        size_bytes = sum(weight.size_bytes for weight in weights)
        external = self.external_data or size_bytes > SINGLE_FILE_LIMIT_BYTES
        model = onnx.ModelProto.FromString(skeleton.graph)
        set_metadata(model, _metadata(job))
        path = job.folder / f"{job.config.graph}.onnx"
        opset, ir_version = _opset(model), model.ir_version
        with job.progress(path.name, size_bytes) as advance:
            chunks = [size for name in self.targets if (size := TARGETS[name].chunk_bytes) is not None]
            files = write_model(model, weights, path, advance, external=external, chunk_bytes=min(chunks, default=None))
        return Artifact(
            format=self.format,
            path=files[0],
            files=tuple(files),
            details={
                "opset": opset,
                "nodes": skeleton.nodes,
                "operators": skeleton.operators,
                "external_data": external,
                "ir_version": ir_version,
                "from_template": from_template,
            },
            fixed_sizes=dict(job.config.fixed_sizes),
            config=job.config,
        )

    def _skeleton(self, job: ExportJob) -> tuple[Skeleton, list[Tensors], bool]:
        """Return the model without weights, the tensors of each of its graphs, and whether it came from a template.

        A template that cannot be used is reported, and made again.
        """
        if self.model is not None:
            return *self._capture(job, self.model), False
        whole = load_model(job.checkpoint, job.config, job.dtype)
        if self.templates is None or job.config.trust_remote_code:  # no digest covers the checkpoint's own code
            return *self._capture(job, whole), False
        key = template_key(job, tied_names(whole), format=self.format, opset=self._opset(job.config))
        try:
            if content := self.templates.find(key):
                skeleton = decode(content)
                tensors = [named_tensors(flat_model(whole, config).model) for config in job.config.branches]
                refuse_misfit(skeleton, tensors)
                self.templates.mark_used(key)
                return skeleton, tensors, True
        except ValueError as error:
            self.note(f"Template {key[:12]} in the cache is not used: {error}. The graph is captured again.")
            whole = load_model(job.checkpoint, job.config, job.dtype)
        skeleton, tensors = self._capture(job, whole)
        self.templates.keep(key, encode(skeleton))
        return skeleton, tensors, False

    def _capture(self, job: ExportJob, whole: torch.nn.Module) -> tuple[Skeleton, list[Tensors]]:
        """Capture the graphs of the model, and find the origin of each of their weights."""
        branches, opset = job.config.branches, self._opset(job.config)
        programs = [
            capture(config, job.dtype, max(opset, LOWEST_WRITTEN), loaded=whole, like=self.model) for config in branches
        ]
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

    def _opset(self, config: ExportConfig) -> int:
        return self.opset if self.opset is not None else config.default_opset


def _metadata(job: ExportJob) -> Mapping[str, str]:
    """Return the values to store in the file; one with fixed sizes also describes its inputs for the runtime."""
    if not job.config.fixed_sizes:
        return job.metadata
    description = Description.of(job.config, job.dtype, fixed_sizes=job.config.fixed_sizes, metadata=job.metadata)
    return {**job.metadata, DESCRIPTION_FILE: json.dumps(description.to_dict())}


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


def _opset(model: onnx.ModelProto) -> int:
    """Return the version of the standard operators."""
    return next(int(imported.version) for imported in model.opset_import if imported.domain in ("", "ai.onnx"))
