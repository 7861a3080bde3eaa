"""Export from templates without importing torch in this process.

A *shortcut* in the cache leads from a checkpoint's config.json, the names and shapes of its tensors, the inputs and the
versions of all code to the templates of its graphs, and to the tensor of the checkpoint that fills each weight. This
process writes the artifacts from them. Meanwhile the process of the reference (`hfexport.run.describing`) finds out
from the checkpoint alone how each artifact is to be validated, which key its template must have, and what the model
computes. Artifacts of a template with another key are discarded, and so are those that fail validation.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from hfexport import __version__
from hfexport._internal import workers
from hfexport.backends.templates import SHORTCUT_SUFFIX, Templates, checkpoint_key
from hfexport.checkpoint import Checkpoint, Contents, read_checkpoint
from hfexport.checkpoint.quantized import quantization_method
from hfexport.errors import CheckpointError, HfexportError, first_line
from hfexport.run.finishing import Made
from hfexport.run.graph_cache import templates_for
from hfexport.run.inputs import deciding_inputs, recorded

if TYPE_CHECKING:
    from hfexport._internal.workers import Worker
    from hfexport.backends.base import Artifact
    from hfexport.backends.onnx.origins import Origins
    from hfexport.backends.onnx.template import Skeleton
    from hfexport.backends.onnx.writer import Data
    from hfexport.run.inputs import Inputs
    from hfexport.run.pipeline import Run

__all__ = ["Warm", "keep_shortcut", "open_shortcut"]

_FORMAT: Final = "onnx"


class _Refused(Exception):
    """The artifacts cannot be used; the message says why."""


@dataclass(frozen=True)
class _File:
    """A file to write: its template, the data of its weights, and their origins."""

    origins: Origins
    skeleton: Skeleton
    weights: Sequence[Data]


def _eligible(inputs: Inputs, contents: Contents) -> bool:
    """Return whether the weights are exported as they are, to plain ONNX files that are validated."""
    plain = contents.weights.format == "safetensors" and not contents.weights.variant
    foreign = inputs.trust_remote_code or inputs.export_config is not None
    more = inputs.fixed or inputs.target or inputs.variants or inputs.benchmark
    asked = inputs.formats == (_FORMAT,) and inputs.validate == "strict"
    return asked and plain and not foreign and not more and not quantization_method(contents.config)


def _key(checkpoint: Checkpoint, inputs: Inputs) -> str:
    values = recorded(inputs)
    return checkpoint_key(checkpoint, {name: values[name] for name in deciding_inputs()})


def keep_shortcut(inputs: Inputs, staging: Path, checkpoint: Checkpoint, origins: Sequence[Origins]) -> None:
    """Store the way from a checkpoint to its templates, if a later run can do without torch.

    Args:
        inputs: the user's inputs.
        staging: folder for unfinished files.
        checkpoint: checkpoint that was exported.
        origins: origins of the weights of each file, in the order of the files.
    """
    templates = templates_for(inputs, staging)
    if templates is None or checkpoint.conversion is not None or not _eligible(inputs, checkpoint.contents):
        return
    if checkpoint.folder == checkpoint.contents.folder:
        templates.keep(_key(checkpoint, inputs), msgspec.msgpack.encode(list(origins)), SHORTCUT_SUFFIX)


def open_shortcut(work: Run, contents: Contents) -> Warm | None:
    """Return the export of a checkpoint from templates; `None` if the cache has none that fits.

    A shortcut or template that cannot be used is reported.
    """
    templates = templates_for(work.inputs, work.staging)
    if templates is None or work.further_probes is not None or not _eligible(work.inputs, contents):
        return None
    try:
        checkpoint = read_checkpoint(contents)
    except CheckpointError:
        return None  # it is reported where the weights are read
    key = _key(checkpoint, work.inputs)
    try:
        files = _open_files(templates, key, checkpoint)
    except ValueError as error:
        work.observer.note(f"Shortcut {key[:12]} in the cache is not used: {error}.")
        return None
    return None if files is None else Warm(work, templates, key, checkpoint, files)


def _open_files(templates: Templates, key: str, checkpoint: Checkpoint) -> tuple[_File, ...] | None:
    """Read the shortcut and its templates; `None` if one is missing.

    Raises:
        ValueError: one is damaged or does not fit the checkpoint.
    """
    if (content := templates.find(key, SHORTCUT_SUFFIX)) is None:
        return None
    from hfexport.backends.onnx.origins import Origins, open_weights
    from hfexport.backends.onnx.template import decode
    from hfexport.checkpoint.safetensors_header import stored_tensors

    stored = {tensor.name: tensor for path in checkpoint.weight_files for tensor in stored_tensors(path)}
    files = []
    for origins in msgspec.msgpack.decode(content, type=tuple[Origins, ...]):
        if (template := templates.find(origins.key)) is None:
            return None
        if not origins.graph.isidentifier():
            raise ValueError(f"it names a file {origins.graph!r}")
        skeleton = decode(template)
        files.append(_File(origins, skeleton, open_weights(skeleton, origins, stored)))
    return tuple(files) or None


@dataclass(frozen=True)
class Warm:
    """Export of one checkpoint from templates.

    Attributes:
        work: the run.
        templates: templates of the cache.
        key: key of the shortcut.
        checkpoint: the checkpoint.
        files: files to write, in the order in which generation runs them.
    """

    work: Run
    templates: Templates
    key: str
    checkpoint: Checkpoint
    files: tuple[_File, ...]

    def export(self, source_identity: str, on_made: Any) -> Made | None:
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
        job = {
            "folder": str(self.checkpoint.contents.root.resolve()),
            "inputs": asdict(replace(work.inputs, hub_token=None, cache=None)),
            "staging": str(staging),
            "answers": str(folder),
            "threads": reference_threads(work.env),
        }
        return workers.start(
            "hfexport.run.describing",
            job,
            name="reference",
            folder=folder,
            env=workers.child_environment(work.env),
            kind="transformers",
            standbys=work.standbys,
            prepared_by=REFERENCE_WORKER,
        )

    def _made(self, worker: Worker, ready: Path, source_identity: str, on_made: Any) -> Made:
        from hfexport._internal.messages import read
        from hfexport.export_config.described import DescribedConfig
        from hfexport.run.formats import open_format
        from hfexport.validation.messages import ReferenceJob
        from hfexport.validation.reference.start import started_references
        from hfexport.validation.validate import prepare_runner

        work = self.work
        if work.standbys is not None:
            prepare_runner(work.standbys, _FORMAT, work.env)
        form = open_format(_FORMAT, work.setup)
        with work.stages(f"Export to {_FORMAT}"):
            artifacts = self._write(form.backend, ready, source_identity)
        for path in (path for artifact in artifacts for path in artifact.files):
            on_made(path)
        with work.stages("Model configuration"):
            try:
                described = worker.result(self._timeout_s)
            except (
                HfexportError
            ) as error:  # raised again, and explained, where the model is exported without a template
                raise _Refused(first_line(error)) from error
        for kind, text in described["notes"]:
            (work.observer.warn if kind == "warn" else work.observer.note)(text)
        self._confirm(described["graphs"])
        configs = tuple(DescribedConfig(graph["config"]) for graph in described["graphs"])
        exporter = work.exporter(self.checkpoint, source_identity, configs[0], described["dtype"])
        made = Made(exporter, configs[0], described["dtype"], described["unused"], [])
        made.describe(work.manifest)
        exporter.references.adopt(started_references(worker, read(described["reference"], ReferenceJob)))
        comparison = form.validator(exporter.subject, exporter.references).start(configs, {})
        results = made.results
        for artifact, config in zip(artifacts, configs, strict=True):
            companions = [(earlier, earlier_config) for earlier, earlier_config, _ in results]
            whole = replace(artifact, config=config)
            verdict = exporter.validate(whole, config, comparison, companions)
            if verdict.verdict == "failed":
                raise _Refused(f"{artifact.name} is wrong")
            results.append((whole, config, verdict))
        for file in self.files:
            self.templates.mark_used(file.origins.key)
        self.templates.mark_used(self.key)
        return made

    def _write(self, backend: Any, ready: Path, source_identity: str) -> list[Artifact]:
        """Write every file; the weights stay mapped from the checkpoint."""
        (ready / _FORMAT).mkdir(parents=True)
        metadata = {"producer": "hfexport", "version": __version__, "source": source_identity}
        return [
            backend.write(
                file.skeleton,
                file.weights,
                ready / _FORMAT / f"{file.origins.graph}.onnx",
                {**metadata, "task": file.origins.task},
                lambda name, total: self.work.observer.progress(name, total, unit="B"),
                from_template=True,
            )
            for file in self.files
        ]

    def _confirm(self, graphs: Sequence[Mapping[str, Any]]) -> None:
        """Compare the templates with those that the checkpoint's graphs have.

        Raises:
            _Refused: the shortcut led to others.
        """
        wanted = [(graph["key"], graph["config"]["graph"], graph["config"]["task"]["name"]) for graph in graphs]
        if wanted != [(file.origins.key, file.origins.graph, file.origins.task) for file in self.files]:
            raise _Refused("the checkpoint has another graph")
