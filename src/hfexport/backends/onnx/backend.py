"""ONNX back end: capture a model without weights, simplify the graph, stream the weights into the file, check it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import onnx

from hfexport.backends.base import Artifact, Data, ExportJob
from hfexport.backends.onnx.targets import TARGETS, chunk_limit, shares_weights
from hfexport.backends.onnx.template import Skeleton, decode, encode
from hfexport.backends.onnx.writer import SINGLE_FILE_LIMIT_BYTES, set_metadata, write_model
from hfexport.backends.templates import template_key
from hfexport.export_config.fixed import fix_graphs
from hfexport.runtime import DESCRIPTION_FILE, Description

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    import torch

    from hfexport.backends.origins import Origins
    from hfexport.backends.templates import Templates
    from hfexport.backends.tensors import Tensors
    from hfexport.export_config import ExportConfig, Layout

__all__ = ["OnnxBackend"]


def _ignore(message: str) -> None:
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
        on_origins: called for each graph whose weights can be found in the checkpoint without loading the model.
    """

    opset: int | None = None
    external_data: bool = False
    fixed: Mapping[str, int] = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    model: torch.nn.Module | None = None
    templates: Templates | None = None
    note: Callable[[str], None] = _ignore
    on_origins: Callable[[Origins], None] | None = None
    format: ClassVar[str] = "onnx"
    suffix: ClassVar[str] = ".onnx"
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
        from hfexport.backends.tensors import fill

        skeleton, tensors, from_template = self._skeleton(job)
        path = job.folder / f"{job.config.graph}.onnx"
        made = self.write(
            skeleton, fill(skeleton.weights, tensors), path, _metadata(job), job.progress, from_template=from_template
        )
        return replace(made, fixed_sizes=dict(job.config.fixed_sizes), config=job.config)

    def key(self, job: ExportJob, tied: Sequence[Sequence[str]]) -> str:
        """Return the key of an artifact's template; see `TemplateBackend`."""
        return template_key(job, tied, format=self.format, opset=self.opset_of(job.config))

    def decode(self, content: bytes) -> Skeleton:
        """Read a template; see `TemplateBackend`."""
        return decode(content)

    def describes(self, template: Skeleton, config: ExportConfig, dtype: str) -> bool:
        """Return true: the interface is that of the graph, which the runner compares with the config."""
        del template, config, dtype
        return True

    def write(
        self,
        template: Skeleton,
        weights: Sequence[Data],
        path: Path,
        metadata: Mapping[str, str],
        progress: Callable[[str, int], AbstractContextManager[Callable[[int], None]]],
        *,
        from_template: bool,
    ) -> Artifact:
        """Write a template with its weights; see `TemplateBackend`. Torch-free."""
        size_bytes = sum(weight.size_bytes for weight in weights)
        external = self.external_data or shares_weights(self.targets) or size_bytes > SINGLE_FILE_LIMIT_BYTES
        model = onnx.ModelProto.FromString(template.graph)
        set_metadata(model, metadata)
        opset, ir_version = _opset(model), model.ir_version
        with progress(path.name, size_bytes) as advance:
            limit = chunk_limit(self.targets)
            files = write_model(model, weights, path, advance, external=external, chunk_bytes=limit)
        return Artifact(
            format=self.format,
            path=files[0],
            files=tuple(files),
            details={
                "opset": opset,
                "nodes": template.nodes,
                "operators": template.operators,
                "external_data": external,
                "ir_version": ir_version,
                "from_template": from_template,
            },
        )

    def _skeleton(self, job: ExportJob) -> tuple[Skeleton, list[Tensors], bool]:
        """Return the model without weights, the tensors of each of its graphs, and whether it came from a template.

        A template that cannot be used is reported, and made again.
        """
        from hfexport.backends.onnx.skeleton import capture_skeleton
        from hfexport.backends.tensors import named_tensors, refuse_misfit
        from hfexport.modeling.load import load_model, tied_names
        from hfexport.modeling.wrappers import flat_model

        opset = self.opset_of(job.config)
        if self.model is not None:
            return *capture_skeleton(job, self.model, opset, self.model), False
        whole = load_model(job.checkpoint, job.config, job.dtype)
        if self.templates is None or job.config.trust_remote_code:  # no digest covers the checkpoint's own code
            return *capture_skeleton(job, whole, opset), False
        key = self.key(job, tied_names(whole))
        try:
            if content := self.templates.find(key):
                skeleton = decode(content)
                tensors = [named_tensors(flat_model(whole, config).model) for config in job.config.branches]
                refuse_misfit(skeleton.weights, tensors)
                self.templates.mark_used(key)
                self._found(job, key, skeleton, tensors)
                return skeleton, tensors, True
        except ValueError as error:
            self.note(f"Template {key[:12]} in the cache is not used: {error}. The graph is captured again.")
            whole = load_model(job.checkpoint, job.config, job.dtype)
        skeleton, tensors = capture_skeleton(job, whole, opset)
        self.templates.keep(key, encode(skeleton))
        self._found(job, key, skeleton, tensors)
        return skeleton, tensors, False

    def _found(self, job: ExportJob, key: str, skeleton: Skeleton, tensors: Sequence[Tensors]) -> None:
        """Report where the weights of a graph are in the checkpoint, so that a later run can do without torch."""
        from hfexport.backends.tracing_back import find_origins

        if self.on_origins is not None and (origins := find_origins(job, key, skeleton.weights, tensors)) is not None:
            self.on_origins(origins)

    def opset_of(self, config: ExportConfig) -> int:
        """Return the opset of a graph: the requested one, or the architecture's default."""
        return self.opset if self.opset is not None else config.default_opset


def _metadata(job: ExportJob) -> Mapping[str, str]:
    """Return the values to store in the file; one with fixed sizes also describes its inputs for the runtime."""
    if not job.config.fixed_sizes:
        return job.metadata
    description = Description.of(job.config, job.dtype, fixed_sizes=job.config.fixed_sizes, metadata=job.metadata)
    return {**job.metadata, DESCRIPTION_FILE: json.dumps(description.to_dict())}


def _opset(model: onnx.ModelProto) -> int:
    """Return the version of the standard operators."""
    return next(int(imported.version) for imported in model.opset_import if imported.domain in ("", "ai.onnx"))
