"""Export from templates without importing torch in this process.

A *shortcut* in the cache leads from a checkpoint's config.json, the names and shapes of its tensors, the inputs and the
versions of all code to the templates of its graphs, and to the tensor of the checkpoint that fills each weight. This
process writes the artifacts from them. Meanwhile the process of the reference (`hfexport.run.describing`) determines
from the checkpoint alone how to validate each artifact, which key its template must have, and the outputs of the
model. Artifacts of a template with another key are discarded, and so are those that fail validation.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec

from hfexport import __version__
from hfexport._internal import workers
from hfexport._internal.messages import plain
from hfexport.backends.formats import FORMATS
from hfexport.backends.templates import SHORTCUT_SUFFIX, Templates, checkpoint_key
from hfexport.checkpoint import Checkpoint, Contents, read_checkpoint
from hfexport.checkpoint.quantized import quantization_method
from hfexport.errors import CheckpointError, HfexportError, first_line
from hfexport.run.finishing import Made
from hfexport.run.formats import open_format
from hfexport.run.graph_cache import templates_for
from hfexport.run.inputs import deciding_inputs, recorded
from hfexport.run.messages import DescribedGraph, DescribingJob

if TYPE_CHECKING:
    from hfexport._internal.workers import Worker
    from hfexport.backends.base import Artifact, Data, Template, TemplateBackend
    from hfexport.backends.origins import Origins
    from hfexport.export_config import ExportConfig
    from hfexport.run.exporter import Result
    from hfexport.run.formats import FormatRun
    from hfexport.run.inputs import Inputs
    from hfexport.run.pipeline import Run

__all__ = ["Warm", "keep_shortcuts", "open_shortcuts"]


class _Refused(Exception):
    """The artifacts cannot be used; the message says why."""


@dataclass(frozen=True)
class _File:
    """A file to write: its template, the data of its weights, and their origins."""

    origins: Origins
    template: Template
    weights: Sequence[Data]


def _eligible(inputs: Inputs, contents: Contents) -> bool:
    """Return whether a run can use templates: unconverted weights, validation, and only plain files of formats with templates."""
    plain = contents.weights.format == "safetensors" and not contents.weights.variant
    foreign = inputs.trust_remote_code or inputs.export_config is not None
    more = inputs.fixed or inputs.target or inputs.variants or inputs.benchmark
    asked = all(FORMATS[name].has_templates for name in inputs.formats) and inputs.validate == "strict"
    return asked and plain and not foreign and not more and not quantization_method(contents.config)


def _key(checkpoint: Checkpoint, inputs: Inputs, format_name: str) -> str:
    values = {**recorded(inputs), "formats": format_name}
    return checkpoint_key(checkpoint, {name: values[name] for name in deciding_inputs()})


def keep_shortcuts(
    inputs: Inputs,
    staging: Path,
    checkpoint: Checkpoint,
    results: Sequence[Result],
    origins: Mapping[str, Sequence[Origins]],
) -> None:
    """Store the shortcuts from a checkpoint to its templates, if a later run can use them.

    Args:
        inputs: the user's inputs.
        staging: folder for unfinished files.
        checkpoint: checkpoint that was exported.
        results: artifacts, in the order of formats and graphs.
        origins: origins of the weights of the files of each format.
    """
    templates = templates_for(inputs, staging)
    if templates is None or checkpoint.conversion is not None or not _eligible(inputs, checkpoint.contents):
        return
    if checkpoint.folder != checkpoint.contents.folder:
        return
    for name in inputs.formats:
        made = [(artifact, config) for artifact, config, _ in results if artifact.format == name]
        known = {one.graph: one for one in origins[name]}
        found = [known.get(config.graph) for artifact, config in made if not artifact.fixed_sizes]
        if len(found) == len(made) and None not in found:
            templates.keep(_key(checkpoint, inputs, name), msgspec.msgpack.encode(found), SHORTCUT_SUFFIX)


def open_shortcuts(work: Run, contents: Contents) -> Warm | None:
    """Return the export of a checkpoint from templates; `None` if the cache lacks one that fits, for any format.

    A shortcut or template that cannot be used is reported.
    """
    templates = templates_for(work.inputs, work.staging)
    if templates is None or work.further_probes is not None or not _eligible(work.inputs, contents):
        return None
    try:
        checkpoint = read_checkpoint(contents)
    except CheckpointError:
        return None  # it is reported where the weights are read
    keys = {name: _key(checkpoint, work.inputs, name) for name in work.inputs.formats}
    if any(not templates.has(key, SHORTCUT_SUFFIX) for key in keys.values()):
        return None
    forms, files = {}, {}
    for name, key in keys.items():
        forms[name] = open_format(name, work.setup)
        try:
            found = _open_files(templates, key, checkpoint, cast("TemplateBackend", forms[name].backend))
        except ValueError as error:
            work.observer.note(f"Shortcut {key[:12]} in the cache is not used: {error}.")
            return None
        if not found:
            return None
        files[name] = found
    return Warm(work, templates, keys, checkpoint, forms, files)


def _open_files(
    templates: Templates, key: str, checkpoint: Checkpoint, backend: TemplateBackend
) -> tuple[_File, ...] | None:
    """Read the shortcut of a format and its templates; `None` if one is missing.

    Raises:
        ValueError: one is damaged or does not fit the checkpoint.
    """
    if (content := templates.find(key, SHORTCUT_SUFFIX)) is None:
        return None
    from hfexport.backends.origins import Origins, open_weights
    from hfexport.checkpoint.safetensors_header import stored_tensors

    stored = {tensor.name: tensor for path in checkpoint.weight_files for tensor in stored_tensors(path)}
    files = []
    for origins in msgspec.msgpack.decode(content, type=tuple[Origins, ...]):
        if (encoded := templates.find(origins.key)) is None:
            return None
        if not origins.graph.isidentifier():
            raise ValueError(f"it names a file {origins.graph!r}")
        template = backend.decode(encoded)
        files.append(_File(origins, template, open_weights(template.weights, origins, stored)))
    return tuple(files)


@dataclass(frozen=True)
class Warm:
    """Export of one checkpoint from templates.

    Attributes:
        work: the run.
        templates: templates of the cache.
        keys: key of the shortcut of each format.
        checkpoint: the checkpoint.
        forms: the formats, by name.
        files: files to write of each format, in the order in which generation runs them.
    """

    work: Run
    templates: Templates
    keys: Mapping[str, str]
    checkpoint: Checkpoint
    forms: Mapping[str, FormatRun]
    files: Mapping[str, tuple[_File, ...]]

    def export(self, source_identity: str, on_made: Callable[[Path], None]) -> Made | None:
        """Write the artifacts and validate them.

        Args:
            source_identity: identity of the checkpoint, stored in artifacts.
            on_made: called with each complete file of an artifact.

        Returns:
            The validated artifacts; `None` if they are wrong, which is reported. The model is exported without
            templates then.

        Raises:
            HfexportError: an artifact could not be validated.
        """
        ready = self.work.staging / "ready"
        with self._describing() as worker:
            try:
                return self._made(worker, ready, source_identity, on_made)
            except _Refused as error:
                self.work.observer.warn(f"The cached template is not used: {error}; the graph is captured again.")
        self.templates.distrust()
        shutil.rmtree(ready)
        self.work.manifest["artifacts"] = []
        return None

    @property
    def _timeout_s(self) -> float:
        """Return the time limit of the reference."""
        limit = self.work.inputs.validation_timeout or workers.timeout_for(self.checkpoint.size_bytes)
        return float(limit)

    def _describing(self) -> Worker:
        """Start the process that describes the checkpoint and computes the references."""
        from hfexport.validation.reference.start import REFERENCE_WORKER, reference_threads

        work = self.work
        folder = (work.staging / "described").resolve()
        staging = folder / "staging"
        staging.mkdir(parents=True)
        job = DescribingJob(
            folder=str(self.checkpoint.contents.root.resolve()),
            inputs=replace(work.inputs, hub_token=None, cache=None),
            staging=str(staging),
            answers=str(folder),
            threads=reference_threads(work.env),
        )
        return workers.start(
            "hfexport.run.describing",
            plain(job),
            name="reference",
            folder=folder,
            env=workers.child_environment(work.env),
            kind="transformers",
            standbys=work.standbys,
            prepared_by=REFERENCE_WORKER,
        )

    def _made(self, worker: Worker, ready: Path, source_identity: str, on_made: Callable[[Path], None]) -> Made:
        from hfexport.run.describing import await_description
        from hfexport.validation.reference.start import started_references
        from hfexport.validation.validate import prepare_runner

        work = self.work
        if work.standbys is not None:
            prepare_runner(work.standbys, next(iter(self.files)), work.env)
        artifacts = [artifact for name in self.files for artifact in self._write(name, ready, source_identity, on_made)]
        with work.stages("Model configuration"):
            try:
                described = await_description(worker, worker.folder, self._timeout_s)
            except (
                HfexportError
            ) as error:  # raised again, and explained, where the model is exported without a template
                raise _Refused(first_line(error)) from error
        for kind, text in described.notes:
            (work.observer.warn if kind == "warn" else work.observer.note)(text)
        configs = self._confirmed(described.graphs, described.dtype)
        exporter = work.exporter(self.checkpoint, source_identity, configs[0], described.dtype)
        made = Made(exporter, configs[0], described.dtype, described.unused, [])
        made.describe(work.manifest)
        exporter.references.adopt(started_references(worker, described.reference))
        results = made.results
        for artifact, config in zip(artifacts, configs, strict=True):
            validator = self.forms[artifact.format].validator(exporter.subject, exporter.references)
            comparison = validator.start((config,), {})
            companions = [
                (earlier, described) for earlier, described, _ in results if earlier.format == artifact.format
            ]
            whole = replace(artifact, config=config)
            try:
                verdict = exporter.validate(whole, config, comparison, companions)
            except HfexportError:
                self._refuse_failed(worker)
                raise
            if verdict.verdict == "failed":
                raise _Refused(f"{artifact.name} is wrong")
            results.append((whole, config, verdict))
        for key in (*self.keys.values(), *(file.origins.key for files in self.files.values() for file in files)):
            self.templates.mark_used(key)
        return made

    def _refuse_failed(self, worker: Worker) -> None:
        """Raise `_Refused` if the model itself failed: that is explained where it is exported without a template."""
        try:
            worker.result(0)
        except HfexportError as error:
            raise _Refused(first_line(error)) from error

    def _write(self, name: str, ready: Path, source_identity: str, on_made: Callable[[Path], None]) -> list[Artifact]:
        """Write every file of a format; the weights stay mapped from the checkpoint."""
        (ready / name).mkdir(parents=True)
        backend = cast("TemplateBackend", self.forms[name].backend)
        metadata = {"producer": "hfexport", "version": __version__, "source": source_identity}
        artifacts = []
        with self.work.stages(f"Export to {name}"):
            for file in self.files[name]:
                artifact = backend.write(
                    file.template,
                    file.weights,
                    ready / name / f"{file.origins.graph}{backend.suffix}",
                    {**metadata, "task": file.origins.task},
                    lambda shown, total: self.work.observer.progress(shown, total, unit="B"),
                    from_template=True,
                )
                artifacts.append(artifact)
                for path in artifact.files:
                    on_made(path)
        return artifacts

    def _confirmed(self, graphs: Sequence[DescribedGraph], dtype: str) -> list[ExportConfig]:
        """Return the export config of each file, if the templates are those of the checkpoint's graphs.

        Raises:
            _Refused: a shortcut led to others, or a template describes other inputs or outputs.
        """
        from hfexport.export_config.described import DescribedConfig

        wanted = [(graph.format, graph.key, graph.config.graph, graph.config.task.name) for graph in graphs]
        found = [(name, file) for name, files in self.files.items() for file in files]
        if wanted != [(name, file.origins.key, file.origins.graph, file.origins.task) for name, file in found]:
            raise _Refused("the checkpoint has another graph")
        configs: list[ExportConfig] = [DescribedConfig(graph.config) for graph in graphs]
        for (name, file), config in zip(found, configs, strict=True):
            if not cast("TemplateBackend", self.forms[name].backend).describes(file.template, config, dtype):
                raise _Refused("a template describes other inputs or outputs")
        return configs
