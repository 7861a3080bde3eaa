"""Make the artifacts of one model: export each graph to a format, run it in a new process, and compare."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfexport import __version__
from hfexport.checkpoint import Checkpoint
from hfexport.errors import ValidationError
from hfexport.export_config import DecoderConfig, ExportConfig
from hfexport.run.stages import Stages

if TYPE_CHECKING:
    from hfexport.backends.base import Artifact
    from hfexport.backends.neuron.options import NeuronRun
    from hfexport.export_config import Layout
    from hfexport.export_config.probes import Probe
    from hfexport.run.inputs import Inputs
    from hfexport.run.observer import Observer
    from hfexport.validation import Reference
    from hfexport.validation.compare import ArtifactVerdict

    Graphs = tuple[ExportConfig, ...]
    """The graphs of one model, in the order in which generation runs them."""

    Result = tuple[Artifact, ExportConfig, ArtifactVerdict]

__all__ = ["Exporter"]


def _nothing(path: Path) -> None:
    del path


@dataclass
class Exporter:
    """Make and validate the artifacts of one checkpoint.

    Attributes:
        inputs: the user's inputs.
        observer: receives notes and progress.
        env: environment; child processes get an allow-list of it.
        staging: folder for unfinished files.
        stages: records each step.
        checkpoint: checkpoint as safetensors.
        source_identity: identity of the checkpoint, stored in artifacts.
        family: export config of the model; its graphs are exported.
        dtype: `fp32` or `fp16`.
        opset: ONNX opset.
        further_probes: returns probes for shape-free artifacts in addition to hfexport's own.
        neuron: environment of the SDK, for format `neuron`.
        limited: limit memory, time and file size of artifacts when they run, for artifacts made elsewhere.
        on_made: called with each complete file of an artifact; again if the file is replaced.
    """

    inputs: Inputs
    observer: Observer
    env: Mapping[str, str]
    staging: Path
    stages: Stages
    checkpoint: Checkpoint
    source_identity: str
    family: ExportConfig
    dtype: str
    opset: int
    further_probes: Callable[[ExportConfig], tuple[Probe, ...]] | None = None
    neuron: NeuronRun | None = None
    limited: bool = False
    on_made: Callable[[Path], None] = _nothing
    _references: list[Reference] = field(default_factory=list)
    _shared: Mapping[str, Reference] = field(default_factory=dict)
    _folders: dict[str, Path] = field(default_factory=dict)

    @property
    def ready(self) -> Path:
        """Return the folder that becomes the output."""
        return self.staging / "ready"

    def run(self) -> list[Result]:
        """Export to every requested format.

        Raises:
            InputsError: the disk or the memory is too small for the run.
        """
        self._refuse_misfit()
        try:
            return [result for name in self.inputs.formats for result in self._one_format(name)]
        finally:
            self.stop()

    def folder_in(self, dtype: str) -> Path:
        """Return a folder with the checkpoint's weights in `dtype`, so that they can be mapped; copy them if needed."""
        from hfexport.modeling.conversion.dtype_copy import plan_dtypes, write_in_dtype

        if dtype not in self._folders:
            plan = plan_dtypes(self.checkpoint, self.family, dtype)
            if not plan.dtypes:
                self._folders[dtype] = self.checkpoint.folder
                return self.checkpoint.folder
            folder = self.staging / f"weights-{dtype}"
            with (
                self.stages(f"Weights in {dtype}"),
                self.observer.progress(f"weights in {dtype}", plan.size_bytes, unit="B") as advance,
            ):
                write_in_dtype(self.checkpoint, plan, folder, advance)
            self._folders[dtype] = folder
        return self._folders[dtype]

    def _refuse_misfit(self) -> None:
        from hfexport.modeling.conversion.dtype_copy import plan_dtypes
        from hfexport.modeling.load import model_without_data
        from hfexport.modeling.untrusted_config import refuse_implausible
        from hfexport.run.preflight import Needs, refuse_misfit
        from hfexport.validation.memory import available_bytes

        formats = [name for name in self.inputs.formats if name != "neuron"]
        if not formats:
            return
        model = model_without_data(self.family, self.dtype)
        refuse_implausible(self.checkpoint.folder, lambda: model)
        sizes = [parameter.nbytes for parameter in model.parameters()]
        copy_bytes = plan_dtypes(self.checkpoint, self.family, self.dtype).size_bytes
        needs = Needs(copy_bytes, sum(sizes), max(sizes, default=0), formats)
        if said := refuse_misfit(needs, Path(self.inputs.output), available_bytes()):
            self.observer.note(said)

    def stop(self) -> None:
        """Stop running child processes."""
        for reference in self._references:
            reference.worker.stop()

    def _one_format(self, name: str) -> list[Result]:
        """Export every graph to one format, then validate each; generation in the last one runs through all graphs."""
        from hfexport.validation import not_run

        if name == "neuron":
            return [self._neuron_format()]
        strict = self.inputs.validate == "strict"
        graphs = self._graphs(name)
        if strict and not self._shared:
            # Formats with another layout of graphs are validated with the same probes.
            self._shared = self._start_references([branch for config in graphs for branch in config.branches], {})
        (self.ready / name).mkdir()
        with self.stages(f"Export to {name}"):
            artifacts = [self._export(name, config, {}) for config in graphs]
        if not strict:
            reason = "validate is off"
            return [(artifact, config, not_run(reason)) for artifact, config in zip(artifacts, graphs, strict=True)]
        results: list[Result] = []
        for artifact, config in zip(artifacts, graphs, strict=True):
            made = [(earlier, described) for earlier, described, _ in results]
            verdict = self._validate(artifact, config, self._shared, made)
            result = (artifact, config, verdict)
            if verdict.verdict == "failed" and name == "torchscript" and _only_shapes_fail(verdict, config):
                result = self._at_fixed_sizes(result)
            results.append(result)
        return results

    def _graphs(self, name: str) -> Graphs:
        """Return the layout of an encoder-decoder's graphs: `auto` merges the decoders in ONNX, which has branches."""
        merged_or_split: Layout = "merged" if name == "onnx" else "split"
        return self.family.graphs(merged_or_split if self.inputs.layout == "auto" else self.inputs.layout)

    def _at_fixed_sizes(self, result: Result) -> Result:
        """Export a trace that is valid only at its own sizes again with fixed sizes."""
        artifact, config, _ = result
        sizes = _fixed_sizes(config, self.inputs)
        self.observer.warn(
            f"TorchScript: the trace of {artifact.path.name} holds only at the sizes it was made with; made again at "
            + ", ".join(f"{axis} {size}" for axis, size in sizes.items())
        )
        for file in artifact.files:
            file.unlink()
        references = self._start_references((config,), sizes)
        with self.stages(f"Export to {artifact.format}"):
            artifact = self._export(artifact.format, config, sizes)
        return artifact, config, self._validate(artifact, config, references, [])

    def _neuron_format(self) -> Result:
        """Compile at fixed sizes; the reference has its own probes at those sizes."""
        from hfexport.run.neuron import NeuronExport, plan, static_config
        from hfexport.validation import not_run

        assert self.neuron is not None, "prepared before any export"
        config = static_config(self.family)
        parts = plan(config, self.checkpoint.folder, self.inputs, self.observer.warn)
        work = NeuronExport(
            self.neuron, self.inputs, self.checkpoint.folder, config, parts, self.neuron.folder, self.source_identity
        )
        strict = self.inputs.validate == "strict"
        if strict:
            reference = work.start_reference()
            self._references.extend(reference.parts.values())
        with self.stages("Export to neuron"):
            (self.ready / "neuron").mkdir()
            artifact = work.export(self.ready / "neuron")
        if not strict:
            return artifact, config, not_run("validate is off")
        with self.stages("Validation of neuron"):
            verdict = work.validate(artifact, reference)
        for check in verdict.checks:
            if check.verdict == "not_run":
                self.observer.warn(f"neuron: {check.name}: not run: {check.reason}")
        return artifact, config, verdict

    def revalidate(self, folder: Path, name: str, entries: Sequence[Mapping[str, Any]]) -> list[ArtifactVerdict]:
        """Validate existing artifacts of one format.

        Args:
            folder: folder that the paths are relative to.
            name: name of the format.
            entries: artifacts as in the manifest, in its order.

        Raises:
            ValidationError: the artifacts are not those of the model's graphs.
        """
        from hfexport.backends.base import Artifact

        graphs = self._graphs(name)
        if len(graphs) != len(entries):
            raise ValidationError(f"{name}: has {len(entries)} artifacts, but the model has {len(graphs)} graphs")
        results = []
        made: list[tuple[Artifact, ExportConfig]] = []
        for config, entry in zip(graphs, entries, strict=True):
            sizes = dict(entry["fixed_sizes"] or {})
            files = tuple(folder / file["path"] for file in entry["files"])
            artifact = Artifact(name, folder / entry["path"], files, sizes, entry["details"], config)
            references = self._start_references(config.branches, sizes)
            results.append(self._validate(artifact, config, references, [] if sizes else made))
            made.append((artifact, config))
        return results

    def _start_references(
        self, graphs: Sequence[ExportConfig], fixed_sizes: Mapping[str, int]
    ) -> Mapping[str, Reference]:
        """Start one process that computes the reference for `graphs`, by name."""
        from hfexport.export_config.probes import fixed_probes, validation_probes
        from hfexport.validation import start_references

        def probes(config: ExportConfig) -> tuple[Probe, ...]:
            if fixed_sizes:
                return fixed_probes(config, fixed_sizes)
            further = self.further_probes(config) if self.further_probes is not None else ()
            return (*further, *validation_probes(config))

        asked = [(config, probes(config)) for config in graphs]
        folder = self.staging / f"reference-{len(self._references)}"
        references = start_references(
            self.folder_in(self.dtype),
            asked,
            self.dtype,
            folder=folder,
            env=self.env,
            exact_checkpoint=self.folder_in("fp32") if self.dtype == "fp16" else None,
        )
        self._references.extend(references)
        return {config.graph: reference for config, reference in zip(graphs, references, strict=True)}

    def _export(self, name: str, config: ExportConfig, fixed_sizes: Mapping[str, int]) -> Artifact:
        from hfexport.backends import backend_for
        from hfexport.backends.base import ExportJob

        metadata = self._metadata(config)
        folder, external = self.ready / name, self.inputs.external_data
        weights = self.folder_in(self.dtype)
        job = ExportJob(weights, config, self.dtype, folder, metadata, self.opset, external, fixed_sizes)
        job = replace(job, progress=lambda total: self.observer.progress(f"{config.graph}.onnx", total, unit="B"))
        artifact = backend_for(name).export(job)
        for path in artifact.files:
            self.on_made(path)
        return artifact

    def export_in(self, dtype: str, config: ExportConfig, folder: Path) -> Artifact:
        """Export a graph to ONNX in another dtype, with external weights, to be made into variants."""
        from hfexport.backends import backend_for
        from hfexport.backends.base import ExportJob

        weights = self.folder_in(dtype)
        job = ExportJob(weights, config, dtype, folder, self._metadata(config), self.opset, external_data=True)
        return backend_for("onnx").export(job)

    def _metadata(self, config: ExportConfig) -> dict[str, str]:
        """Return values to store in artifacts."""
        return {
            "producer": "hfexport",
            "version": __version__,
            "source": self.source_identity,
            "task": config.task.name,
        }

    def _validate(
        self,
        artifact: Artifact,
        config: ExportConfig,
        references: Mapping[str, Reference],
        companions: Sequence[tuple[Artifact, ExportConfig]],
    ) -> ArtifactVerdict:
        from hfexport.validation import all_of, resolve_tolerance, timeout_for, validate

        tolerance = resolve_tolerance(config, self.dtype, self.inputs.atol, self.inputs.rtol)
        made = [(earlier, branch) for earlier, described in companions for branch in described.branches]
        timeout_s = float(self.inputs.validation_timeout or timeout_for(self.checkpoint.size_bytes))
        verdicts: list[ArtifactVerdict] = []
        with self.stages(f"Validation of {artifact.format}/{artifact.path.name}"):
            for branch in config.branches:
                folder = Path(tempfile.mkdtemp(prefix=f"run-{artifact.format}-", dir=self.staging))
                reference = references[branch.graph]
                verdicts.append(
                    validate(
                        artifact,
                        branch,
                        reference,
                        tolerance,
                        folder=folder,
                        env=self.env,
                        companions=made,
                        timeout_s=timeout_s,
                        limited=self.limited,
                        by_precision=self.inputs.atol is None and self.inputs.rtol is None,
                    )
                )
                made.append((artifact, branch))
            for line in (line for verdict in verdicts for line in verdict.probe_lines):
                self.observer.note(line)
        together = all_of(verdicts)
        if together.verdict == "incomplete":
            self.observer.warn(f"{artifact.format}/{artifact.path.name}: {together.reason}")
        return together


def _fixed_sizes(config: ExportConfig, inputs: Inputs) -> dict[str, int]:
    """Return the size of each free axis for a static trace, within the model's limits."""
    sizes: dict[str, int] = {}
    asked = {"batch": inputs.batch_size, "sequence": inputs.sequence_length}
    for axis in config.free_axes:
        limit = config.limits.get(axis)
        size = asked.get(axis, config.trace_sizes[axis])
        sizes[axis] = min(size, limit.maximum) if limit is not None and limit.maximum is not None else size
    if isinstance(config, DecoderConfig) and config.max_positions and "past_sequence" in sizes:
        sizes["sequence"] = min(sizes["sequence"], config.max_positions - sizes["past_sequence"])
    return sizes


def _only_shapes_fail(verdict: ArtifactVerdict, config: ExportConfig) -> bool:
    """Return whether fixed sizes could help: some probes pass or are rejected by shape, and not all differ."""
    if not config.free_axes or not verdict.probes:
        return False
    return any(result.passed for result in verdict.probes) or any(result.problem for result in verdict.probes)
