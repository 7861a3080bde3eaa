"""Validators: how the artifacts of a format are compared with the model.

A validator starts computing the references of a model's graphs and returns a comparison, which validates each artifact
when it has been made. `GraphValidator` is for formats that run on this machine, `NeuronValidator` for those of the
Neuron SDK.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hfexport._internal.standby import Standbys
from hfexport.backends.base import Artifact
from hfexport.export_config import ExportConfig
from hfexport.export_config.probes import Probe, fixed_probes, validation_probes
from hfexport.validation.limits import resolve_tolerance
from hfexport.validation.reference.start import Reference, start_references
from hfexport.validation.validate import prepare_runner, validate
from hfexport.validation.verdict import ArtifactVerdict, all_of

if TYPE_CHECKING:
    from hfexport.backends.neuron.artifact import NeuronArtifact
    from hfexport.backends.neuron.backend import NeuronBackend
    from hfexport.validation.neuron import NeuronReference

__all__ = ["Comparison", "GraphValidator", "NeuronValidator", "References", "Subject", "Validator"]

Companions = Sequence[tuple[Artifact, ExportConfig]]
"""Artifacts of the same model that were made before, with the export config of their graphs."""


@dataclass(frozen=True)
class Subject:
    """Model that artifacts are compared with, and the limits of the comparison.

    Attributes:
        checkpoint: folder of the checkpoint as safetensors.
        folder_in: returns a folder with the checkpoint's weights in a dtype.
        dtype: dtype of the artifacts, `fp32` or `fp16`.
        staging: folder for files of child processes.
        env: environment; child processes get an allow-list of it.
        timeout_s: time limit of the reference and of an artifact's run, each.
        atol: requested absolute tolerance; `None` for that of the export config.
        rtol: requested relative tolerance; `None` for that of the export config.
        limited: limit memory, time and file size of artifacts when they run, for artifacts made elsewhere.
        further_probes: returns probes for shape-free artifacts in addition to hfexport's own.
        standbys: processes that were started early.
    """

    checkpoint: Path
    folder_in: Callable[[str], Path]
    dtype: str
    staging: Path
    env: Mapping[str, str]
    timeout_s: float
    atol: float | None = None
    rtol: float | None = None
    limited: bool = False
    further_probes: Callable[[ExportConfig], tuple[Probe, ...]] | None = None
    standbys: Standbys | None = None

    def probes(self, config: ExportConfig, fixed_sizes: Mapping[str, int]) -> tuple[Probe, ...]:
        """Return the probes for a graph: at its fixed sizes, or at several sizes if it is shape-free."""
        if fixed_sizes:
            return fixed_probes(config, fixed_sizes)
        further = self.further_probes(config) if self.further_probes is not None else ()
        return (*further, *validation_probes(config))


class References:
    """References of one run. Formats share the reference of shape-free graphs; `stop` ends all child processes.

    Args:
        subject: the model.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._started: list[Reference] = []
        self._shared: dict[str, Reference] = {}

    def start(self, graphs: Sequence[ExportConfig], fixed_sizes: Mapping[str, int]) -> Mapping[str, Reference]:
        """Start one process that computes the reference for `graphs`; return the references by name of the graph."""
        subject = self._subject
        references = start_references(
            subject.folder_in(subject.dtype),
            [(config, subject.probes(config, fixed_sizes)) for config in graphs],
            subject.dtype,
            folder=subject.staging / f"reference-{len(self._started)}",
            env=subject.env,
            exact_checkpoint=subject.folder_in("fp32") if subject.dtype == "fp16" else None,
            standbys=subject.standbys,
        )
        self.own(references)
        return {config.graph: reference for config, reference in zip(graphs, references, strict=True)}

    def shared(self, graphs: Sequence[ExportConfig]) -> Mapping[str, Reference]:
        """Return the references of a model's shape-free graphs; start those that no format has asked for.

        Every layout of an encoder-decoder's graphs has the same branches, and so the same references.
        """
        branches = [branch for config in graphs for branch in config.branches]
        if missing := [branch for branch in branches if branch.graph not in self._shared]:
            self._shared |= self.start(missing, {})
        return self._shared

    def adopt(self, references: Mapping[str, Reference]) -> None:
        """Use these references for the shape-free graphs of their names."""
        self._shared |= references
        self.own(tuple(references.values()))

    def own(self, references: Sequence[Reference]) -> None:
        """Stop these references at the end of the run too."""
        self._started.extend(references)

    def stop(self) -> None:
        """Stop child processes that still run."""
        for reference in self._started:
            reference.worker.stop()


class Comparison(Protocol):
    """References of a model's graphs, with which artifacts are compared."""

    def prepare(self, format_name: str) -> None:
        """Start the process that will run the first artifact, so that it imports the runtime meanwhile."""
        ...

    def validate(self, artifact: Artifact, config: ExportConfig, companions: Companions) -> ArtifactVerdict:
        """Validate an artifact.

        Args:
            artifact: made in this run, or an existing one.
            config: its export config.
            companions: earlier artifacts of the same model, which generation may need.

        Raises:
            ValidationError: the artifact could not be validated.
        """
        ...

    def check_model(self) -> None:
        """Wait for the references.

        Raises:
            UnsupportedError: the model itself fails, or does not run in the dtype of the artifacts.
            HfexportError: the references could not be computed.
        """
        ...


class Validator(Protocol):
    """Starts the references that the artifacts of a format are compared with."""

    def start(self, graphs: Sequence[ExportConfig], fixed_sizes: Mapping[str, int]) -> Comparison:
        """Start the references for `graphs` at fixed sizes, or shape-free if there are none, and return at once."""
        ...


@dataclass(frozen=True)
class GraphValidator:
    """Validates artifacts that run on this machine, each graph by its own probes."""

    subject: Subject
    references: References

    def start(self, graphs: Sequence[ExportConfig], fixed_sizes: Mapping[str, int]) -> Comparison:
        """Start the references for `graphs`, unless another format has."""
        branches = [branch for config in graphs for branch in config.branches]
        fixed = fixed_sizes or any(config.fixed_sizes for config in graphs)
        started = self.references.start(branches, fixed_sizes) if fixed else self.references.shared(graphs)
        return _GraphComparison(self.subject, started)


@dataclass(frozen=True)
class _GraphComparison:
    subject: Subject
    references: Mapping[str, Reference]

    def prepare(self, format_name: str) -> None:
        if self.subject.standbys is not None:
            prepare_runner(self.subject.standbys, format_name, self.subject.env)

    def validate(self, artifact: Artifact, config: ExportConfig, companions: Companions) -> ArtifactVerdict:
        subject = self.subject
        made = [(earlier, branch) for earlier, described in companions for branch in described.branches]
        verdicts: list[ArtifactVerdict] = []
        for branch in config.branches:
            verdicts.append(
                validate(
                    artifact,
                    branch,
                    self.references[branch.graph],
                    resolve_tolerance(config, subject.dtype, subject.atol, subject.rtol),
                    folder=Path(tempfile.mkdtemp(prefix=f"run-{artifact.format}-", dir=subject.staging)),
                    env=subject.env,
                    companions=made,
                    timeout_s=subject.timeout_s,
                    limited=subject.limited,
                    by_precision=subject.atol is None and subject.rtol is None,
                    standbys=subject.standbys,
                )
            )
            made.append((artifact, branch))
        return all_of(verdicts)

    def check_model(self) -> None:
        for reference in self.references.values():
            reference.worker.result(self.subject.timeout_s)


@dataclass(frozen=True)
class NeuronValidator:
    """Validates Neuron artifacts: see `hfexport.validation.neuron` for the checks.

    Attributes:
        subject: the model.
        references: references of the run.
        backend: back end of the artifacts.
        min_compiled: smallest allowed share of compiled operators in each part.
    """

    subject: Subject
    references: References
    backend: NeuronBackend
    min_compiled: float

    def start(self, graphs: Sequence[ExportConfig], fixed_sizes: Mapping[str, int]) -> Comparison:
        """Start the reference at the sizes of the back end, which chooses them itself."""
        from hfexport.backends.neuron.sizes import plan_parts
        from hfexport.validation.neuron import start_neuron_reference

        del fixed_sizes
        run, (config,) = self.backend.run, graphs
        parts = plan_parts(config, self.subject.checkpoint, self.backend.sizes)
        folder = run.folder / "reference"
        reference = start_neuron_reference(self.subject.checkpoint, parts, folder=folder, env=run.env)
        self.references.own(tuple(reference.parts.values()))
        return _NeuronComparison(self, reference)


@dataclass(frozen=True)
class _NeuronComparison:
    validator: NeuronValidator
    reference: NeuronReference

    def prepare(self, format_name: str) -> None:
        """Start nothing: a worker of the Neuron SDK runs the artifacts."""
        del format_name

    def validate(self, artifact: Artifact, config: ExportConfig, companions: Companions) -> ArtifactVerdict:
        from hfexport.backends.neuron.artifact import NeuronArtifact
        from hfexport.backends.neuron.backend import reopen
        from hfexport.backends.neuron.sizes import plan_parts
        from hfexport.validation.neuron import validate_on_device

        del companions
        if isinstance(artifact, NeuronArtifact):
            return self._made_here(artifact, config)
        subject, backend = self.validator.subject, self.validator.backend
        parts = plan_parts(config, subject.checkpoint, backend.sizes, backend.warn)
        existing = reopen(artifact.path.parent, backend.run, parts)
        return validate_on_device(
            existing, self.reference, folder=backend.run.folder / "validation", timeout_s=subject.timeout_s
        )

    def check_model(self) -> None:
        for reference in self.reference.parts.values():
            reference.worker.result(self.validator.subject.timeout_s)

    def _made_here(self, artifact: NeuronArtifact, config: ExportConfig) -> ArtifactVerdict:
        from hfexport.backends.neuron.plan import DTYPE
        from hfexport.validation.neuron import validate_neuron

        subject, run = self.validator.subject, self.validator.backend.run
        return validate_neuron(
            artifact,
            self.reference,
            resolve_tolerance(config, DTYPE, subject.atol, subject.rtol),
            min_compiled=self.validator.min_compiled,
            folder=run.folder / "validation",
            env=run.env,
            timeout_s=subject.timeout_s,
        )
