"""Make the artifacts of one model: export each graph to a format, run it in a new process, and compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hfexport import __version__
from hfexport.backends.formats import FORMATS
from hfexport.checkpoint import Checkpoint
from hfexport.errors import ExportError, HfexportError, UnsupportedError, ValidationError
from hfexport.export_config import LAYOUTS, ExportConfig
from hfexport.run.formats import FormatRun
from hfexport.run.graph_cache import templates_for
from hfexport.run.stages import Stages

if TYPE_CHECKING:
    from hfexport.backends.base import Artifact, Backend, ExportJob
    from hfexport.export_config import Layout
    from hfexport.manifest.model import ArtifactEntry
    from hfexport.run.inputs import Inputs
    from hfexport.run.observer import Observer
    from hfexport.validation.compare import ArtifactVerdict
    from hfexport.validation.validators import Comparison, References, Subject

    Result = tuple[Artifact, ExportConfig, ArtifactVerdict]

__all__ = ["Exporter", "WeightFolders"]


def _nothing(path: Path) -> None:
    del path


@dataclass(frozen=True)
class WeightFolders:
    """Folders with a checkpoint's weights by dtype, so that they can be mapped; each is written at most once.

    Attributes:
        checkpoint: checkpoint as safetensors.
        family: export config of the model.
        staging: folder for unfinished files.
        stages: records the conversion.
        observer: receives progress.
    """

    checkpoint: Checkpoint
    family: ExportConfig
    staging: Path
    stages: Stages
    observer: Observer
    _written: dict[str, Path] = field(default_factory=dict)

    def __call__(self, dtype: str) -> Path:
        """Return the folder for `dtype`: the checkpoint's own, or a copy."""
        from hfexport.modeling.conversion.dtype_copy import plan_dtypes, write_in_dtype

        if dtype not in self._written:
            plan = plan_dtypes(self.checkpoint, self.family, dtype)
            if not plan.dtypes:
                self._written[dtype] = self.checkpoint.folder
                return self.checkpoint.folder
            folder = self.staging / f"weights-{dtype}"
            with (
                self.stages(f"Weights in {dtype}"),
                self.observer.progress(f"weights in {dtype}", plan.size_bytes, unit="B") as advance,
            ):
                write_in_dtype(self.checkpoint, plan, folder, advance)
            self._written[dtype] = folder
        return self._written[dtype]


@dataclass(frozen=True)
class Exporter:
    """Make and validate the artifacts of one checkpoint.

    Attributes:
        inputs: the user's inputs.
        observer: receives notes and progress.
        staging: folder for unfinished files.
        stages: records each step.
        checkpoint: checkpoint as safetensors.
        source_identity: identity of the checkpoint, stored in artifacts.
        family: export config of the model; its graphs are exported.
        subject: the model that artifacts are compared with.
        references: references of the run.
        formats: formats to make, in order.
        on_made: called with each complete file of an artifact; again if the file is replaced.
    """

    inputs: Inputs
    observer: Observer
    staging: Path
    stages: Stages
    checkpoint: Checkpoint
    source_identity: str
    family: ExportConfig
    subject: Subject
    references: References
    formats: tuple[FormatRun, ...] = ()
    on_made: Callable[[Path], None] = _nothing

    @property
    def ready(self) -> Path:
        """Return the folder that becomes the output."""
        return self.staging / "ready"

    def run(self) -> list[Result]:
        """Export to every format.

        Raises:
            InputsError: sizes do not fit the model, or the disk or the memory is too small for the run.
        """
        for form in self.formats:
            form.backend.graphs(self.family, self._layout)  # reports wrong sizes before any work
        self.refuse_misfit()
        try:
            return [result for form in self.formats for result in self._one_format(form)]
        finally:
            self.references.stop()

    def refuse_misfit(self) -> None:
        """Reject a run that the disk or the memory is too small for, and report what it needs.

        Raises:
            InputsError: see `hfexport.run.preflight.refuse_misfit`.
        """
        from hfexport.modeling.conversion.dtype_copy import plan_dtypes
        from hfexport.modeling.load import model_without_data
        from hfexport.modeling.untrusted_config import refuse_implausible
        from hfexport.run.preflight import Needs, refuse_misfit
        from hfexport.validation.memory import available_bytes

        formats = [form.backend.format for form in self.formats if FORMATS[form.backend.format].streams_weights]
        if not formats:
            return
        dtype = self.subject.dtype
        model = model_without_data(self.family, dtype)
        refuse_implausible(self.checkpoint.folder, lambda: model)
        sizes = [parameter.nbytes for parameter in model.parameters()]
        copy_bytes = plan_dtypes(self.checkpoint, self.family, dtype).size_bytes
        needs = Needs(copy_bytes, sum(sizes), max(sizes, default=0), formats)
        if said := refuse_misfit(needs, Path(self.inputs.output), available_bytes()):
            self.observer.note(said)

    def _one_format(self, form: FormatRun) -> list[Result]:
        """Export every graph to one format, then validate each; generation in the last one runs through all graphs."""
        from hfexport.validation import not_run

        backend = form.backend
        graphs = self.graphs(backend)
        comparison = None
        if self.inputs.validate == "strict":
            comparison = form.validator(self.subject, self.references).start(graphs, {})
            comparison.prepare(backend.format)
        (self.ready / backend.format).mkdir()
        with self.stages(f"Export to {backend.format}"):
            try:
                artifacts = [self._export(backend, config, {}) for config in graphs]
            except ExportError as error:
                if not error.failed_by and (cause := self._failure_of_model(form, graphs, comparison)) is not None:
                    raise cause from error
                raise
        if comparison is None:
            reason = "validate is off"
            return [(artifact, config, not_run(reason)) for artifact, config in zip(artifacts, graphs, strict=True)]
        results: list[Result] = []
        for artifact, config in zip(artifacts, graphs, strict=True):
            made = [(earlier, described) for earlier, described, _ in results]
            verdict = self.validate(artifact, config, comparison, made)
            result = (artifact, config, verdict)
            if verdict.verdict == "failed" and artifact.details.get("from_template"):
                result = self._without_template(form, result, comparison, made)
                verdict = result[2]
            if verdict.verdict == "failed" and backend.can_fix_sizes and _only_shapes_fail(verdict, config):
                result = self._at_fixed_sizes(form, result)
            results.append(result)
        return results

    def _failure_of_model(
        self, form: FormatRun, graphs: Sequence[ExportConfig], comparison: Comparison | None
    ) -> UnsupportedError | None:
        """Return the error if the model itself does not run, or not in this dtype; `None` if it runs.

        It replaces the error of the back end, which only results from it.
        """
        try:
            (comparison or form.validator(self.subject, self.references).start(graphs, {})).check_model()
        except UnsupportedError as error:
            return error
        except HfexportError:
            pass  # the model was not run; the back end's error is reported
        return None

    def _without_template(
        self, form: FormatRun, result: Result, comparison: Comparison, made: Sequence[tuple[Artifact, ExportConfig]]
    ) -> Result:
        """Export an artifact again whose template gave a wrong graph; the new template replaces it."""
        artifact, config, _ = result
        self.observer.warn(f"{artifact.name}: the cached template gives a wrong graph; the graph is captured again.")
        for file in artifact.files:
            file.unlink()
        if (templates := templates_for(self.inputs, self.staging)) is not None:
            templates.distrust()
        with self.stages(f"Export to {artifact.format}"):
            artifact = self._export(form.backend, config, artifact.fixed_sizes)
        return artifact, config, self.validate(artifact, config, comparison, made)

    def graphs(self, backend: Backend) -> Sequence[ExportConfig]:
        """Return the graphs of the model in a format, in the order in which generation runs them."""
        return backend.graphs(self.family, self._layout)

    @property
    def _layout(self) -> Layout | None:
        """Return the requested layout of an encoder-decoder's graphs; `None` if the format chooses."""
        return next((layout for layout in LAYOUTS if layout == self.inputs.layout), None)

    def _at_fixed_sizes(self, form: FormatRun, result: Result) -> Result:
        """Export a trace that is valid only at its own sizes again with fixed sizes."""
        artifact, config, _ = result
        sizes = _fixed_sizes(config, self.inputs)
        self.observer.warn(
            f"{FORMATS[artifact.format].label}: the trace of {artifact.path.name} holds only at the sizes it was made"
            " with; made again at " + ", ".join(f"{axis} {size}" for axis, size in sizes.items())
        )
        for file in artifact.files:
            file.unlink()
        templates = templates_for(self.inputs, self.staging)
        if templates is not None and artifact.made_template:
            templates.discard(artifact.made_template)
        comparison = form.validator(self.subject, self.references).start((config,), sizes)
        with self.stages(f"Export to {artifact.format}"):
            artifact = self._export(form.backend, config, sizes)
        return artifact, config, self.validate(artifact, config, comparison, [])

    def revalidate(
        self, form: FormatRun, folder: Path, entries: Sequence[ArtifactEntry]
    ) -> list[tuple[Artifact, ArtifactVerdict]]:
        """Validate existing artifacts of one format.

        Args:
            form: the format.
            folder: folder that the paths are relative to.
            entries: artifacts as in the manifest, in its order.

        Raises:
            ValidationError: the artifacts are not those of the model's graphs.
        """
        from hfexport.backends.base import Artifact

        name = form.backend.format
        graphs = self.graphs(form.backend)
        if len(graphs) != len(entries):
            raise ValidationError(f"{name}: has {len(entries)} artifacts, but the model has {len(graphs)} graphs")
        validator = form.validator(self.subject, self.references)
        results = []
        made: list[tuple[Artifact, ExportConfig]] = []
        for config, entry in zip(graphs, entries, strict=True):
            sizes = {} if config.fixed_sizes else dict(entry["fixed_sizes"] or {})
            files = tuple(folder / file["path"] for file in entry["files"])
            artifact = Artifact(name, folder / entry["path"], files, sizes, entry["details"], config)
            comparison = validator.start((config,), sizes)
            results.append((artifact, self.validate(artifact, config, comparison, [] if sizes else made)))
            made.append((artifact, config))
        return results

    def _export(self, backend: Backend, config: ExportConfig, fixed_sizes: Mapping[str, int]) -> Artifact:
        job = self.job(config, self.subject.dtype, self.ready / backend.format)
        artifact = backend.export(replace(job, fixed_sizes=fixed_sizes))
        for path in artifact.files:
            self.on_made(path)
        return artifact

    def job(self, config: ExportConfig, dtype: str, folder: Path) -> ExportJob:
        """Return the description of a shape-free artifact of a graph, to be made in `folder`."""
        from hfexport.backends.base import ExportJob

        metadata = {
            "producer": "hfexport",
            "version": __version__,
            "source": self.source_identity,
            "task": config.task.name,
        }
        return ExportJob(
            checkpoint=self.subject.folder_in(dtype),
            config=config,
            dtype=dtype,
            folder=folder,
            metadata=metadata,
            progress=lambda name, total: self.observer.progress(name, total, unit="B"),
        )

    def validate(
        self,
        artifact: Artifact,
        config: ExportConfig,
        comparison: Comparison,
        companions: Sequence[tuple[Artifact, ExportConfig]],
    ) -> ArtifactVerdict:
        """Validate an artifact, and report the results.

        Args:
            artifact: made in this run, or an existing one.
            config: its export config.
            comparison: references to compare with.
            companions: earlier artifacts of the same model, which generation may need.
        """
        with self.stages(f"Validation of {artifact.name}"):
            verdict = comparison.validate(artifact, config, companions)
            for line in verdict.probe_lines:
                self.observer.note(line)
        for said in verdict.warnings:
            self.observer.warn(f"{artifact.name}: {said}")
        return verdict


def _fixed_sizes(config: ExportConfig, inputs: Inputs) -> dict[str, int]:
    """Return the size of each free axis for a static trace, within the model's limits."""
    sizes: dict[str, int] = {}
    asked = {"batch": inputs.batch_size, "sequence": inputs.sequence_length}
    for axis in config.free_axes:
        limit = config.limits.get(axis)
        size = asked.get(axis, config.trace_sizes[axis])
        sizes[axis] = min(size, limit.maximum) if limit is not None and limit.maximum is not None else size
    return config.within_positions(sizes)


def _only_shapes_fail(verdict: ArtifactVerdict, config: ExportConfig) -> bool:
    """Return whether fixed sizes could help: some probes pass or are rejected by shape, and not all differ."""
    if not config.free_axes or not verdict.probes:
        return False
    return any(result.passed for result in verdict.probes) or any(result.problem for result in verdict.probes)
