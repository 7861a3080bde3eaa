"""TorchScript back end: trace the model, or fill a template with its weights; write one self-contained file.

This module is torch-free: torch is imported where a model is traced.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from hfexport.backends.base import Artifact, Data, ExportJob
from hfexport.backends.templates import template_key
from hfexport.backends.torchscript.template import Script, decode, encode, held_sizes, take_apart, write_archive
from hfexport.runtime import Description
from hfexport.runtime.artifacts import DescriptionValues

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from hfexport.backends.origins import Origins
    from hfexport.backends.templates import Templates
    from hfexport.backends.tensors import Tensors
    from hfexport.export_config import ExportConfig, Layout
    from hfexport.modeling.load import FlatModel

__all__ = ["TorchScriptBackend"]


def _ignore(message: str) -> None:
    del message


@dataclass(frozen=True)
class TorchScriptBackend:
    """Back end that writes `model.pt`, which loads with `torch.jit.load` and describes its inputs in an extra file.

    Attributes:
        templates: templates of archives to use and to add to; `None` for none.
        note: called with notes for the user.
        on_origins: called for each graph whose weights can be found in the checkpoint without loading the model.
    """

    templates: Templates | None = None
    note: Callable[[str], None] = _ignore
    on_origins: Callable[[Origins], None] | None = None
    format: ClassVar[str] = "torchscript"
    suffix: ClassVar[str] = ".pt"
    can_fix_sizes: ClassVar[bool] = True

    def graphs(self, family: ExportConfig, layout: Layout | None) -> tuple[ExportConfig, ...]:
        """Return the graphs of a model; a trace has no branches, so the decoders of an encoder-decoder stay apart."""
        return family.graphs(layout or "split")

    def export(self, job: ExportJob) -> Artifact:
        """Write an archive from a template, or trace the model at the sizes of the job's example and save the trace."""
        if self.templates is None or job.config.trust_remote_code:  # no digest covers the checkpoint's own code
            return self._traced(job)
        from hfexport.modeling.load import load_model, tied_names

        key = self.key(job, tied_names(load_model(job.checkpoint, job.config, job.dtype)))
        try:
            if content := self.templates.find(key):
                return self._filled(job, key, decode(content))
        except ValueError as error:
            self.note(f"Template {key[:12]} in the cache is not used: {error}. The model is traced again.")
        artifact = self._traced(job)
        return replace(artifact, made_template=key) if self._kept(job, key, artifact) else artifact

    def key(self, job: ExportJob, tied: Sequence[Sequence[str]]) -> str:
        """Return the key of an artifact's template; see `TemplateBackend`."""
        return template_key(job, tied, format=self.format)

    def decode(self, content: bytes) -> Script:
        """Read a template; see `TemplateBackend`."""
        return decode(content)

    def describes(self, template: Script, config: ExportConfig, dtype: str) -> bool:
        """Return whether the description in a template is that of a graph; see `TemplateBackend`."""
        return template.root == config.graph and template.description == _description(
            config, dtype, template.fixed_sizes
        )

    def write(
        self,
        template: Script,
        weights: Sequence[Data],
        path: Path,
        metadata: Mapping[str, str],
        progress: Callable[[str, int], AbstractContextManager[Callable[[int], None]]],
        *,
        from_template: bool,
    ) -> Artifact:
        """Write a template with its weights; see `TemplateBackend`. Torch-free."""
        with progress(path.name, sum(weight.size_bytes for weight in weights)) as advance:
            write_archive(template, weights, path, metadata, advance)
        return Artifact(
            format=self.format,
            path=path,
            files=(path,),
            fixed_sizes=template.fixed_sizes,
            details={
                "nodes": template.nodes,
                "operators": template.operators,
                "untied_tensors": template.untied,
                "from_template": from_template,
            },
        )

    def _traced(self, job: ExportJob) -> Artifact:
        """Trace the model and save the trace."""
        from hfexport.backends.torchscript.trace import save_script, trace_model

        traced = trace_model(job)
        # the stem is the archive's root folder, so equal models need equal names
        path = job.folder / f"{job.config.graph}{self.suffix}"
        save_script(traced.module, path, json.dumps(traced.description.to_dict(), indent=1), traced.size_bytes, job)
        return Artifact(
            format=self.format,
            path=path,
            files=(path,),
            fixed_sizes=traced.description.fixed_sizes if job.fixed_sizes else {},
            details={
                "nodes": traced.operators.total(),
                "operators": dict(sorted(traced.operators.items())),
                "untied_tensors": traced.untied,
                "from_template": False,
            },
        )

    def _filled(self, job: ExportJob, key: str, script: Script) -> Artifact:
        """Write the archive of a template with the weights of the loaded model.

        Raises:
            ValueError: the template does not fit the model.
        """
        from hfexport.backends.tensors import fill, named_tensors, refuse_misfit

        if not self.describes(script, job.config, job.dtype):
            raise ValueError("it describes other inputs or outputs")
        tensors = named_tensors(_flat(job).model)
        refuse_misfit(script.weights, [tensors])
        assert self.templates is not None
        self.templates.mark_used(key)
        self._found(job, key, script, tensors)
        path = job.folder / f"{job.config.graph}{self.suffix}"
        weights = fill(script.weights, [tensors])
        return self.write(script, weights, path, job.metadata, job.progress, from_template=True)

    def _kept(self, job: ExportJob, key: str, artifact: Artifact) -> bool:
        """Store the template of a new archive; return false if there is none that gives the same archive again."""
        from hfexport.backends.tensors import named_tensors, refuse_misfit
        from hfexport.backends.torchscript.trace import reads_numbers

        flat = _flat(job)
        tensors = named_tensors(flat.model)
        try:
            root, weights, records = take_apart(artifact.path)
            script = Script(
                root,
                _description(job.config, job.dtype, artifact.fixed_sizes),
                weights,
                records,
                artifact.details["nodes"],
                artifact.details["operators"],
                artifact.details["untied_tensors"],
                dict(artifact.fixed_sizes),
            )
            content = encode(script)
            decode(content)
            refuse_misfit(weights, [tensors])
        except ValueError:
            return False
        if reads_numbers(flat, job):
            return False
        assert self.templates is not None
        self.templates.keep(key, content)
        self._found(job, key, script, tensors)
        return True

    def _found(self, job: ExportJob, key: str, script: Script, tensors: Tensors) -> None:
        """Report where the weights are in the checkpoint, so that a later run can do without torch."""
        from hfexport.backends.tracing_back import find_origins

        if self.on_origins is not None and not job.fixed_sizes:
            origins = find_origins(job, key, script.weights, [tensors])
            if origins is not None:
                self.on_origins(origins)


def _flat(job: ExportJob) -> FlatModel:
    """Return the graph's module, with its weights mapped from the checkpoint."""
    from hfexport.modeling.load import load_model
    from hfexport.modeling.wrappers import flat_model

    return flat_model(load_model(job.checkpoint, job.config, job.dtype), job.config)


def _description(config: ExportConfig, dtype: str, fixed_sizes: Mapping[str, int]) -> DescriptionValues:
    """Return the description of a graph as JSON values, without metadata."""
    description = Description.of(config, dtype, fixed_sizes=held_sizes(config, fixed_sizes), metadata={})
    return description.to_dict()
