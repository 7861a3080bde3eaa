"""Validation: what the unpatched model answers, what the artifact answers, and whether they are the same.

The reference runs while artifacts are made; each artifact is run in a fresh process that did not make it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hfexport import workers
from hfexport.backends.base import Artifact
from hfexport.errors import ExportError, HfexportError, ValidationError
from hfexport.export_config import ExportConfig, Tolerance
from hfexport.probes import Probe
from hfexport.workers import Worker

if TYPE_CHECKING:
    from hfexport.validation.compare import ArtifactVerdict

__all__ = ["Reference", "not_run", "resolve_tolerance", "start_reference", "validate"]

TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class Reference:
    """A reference that is being computed, or is done.

    Attributes:
        worker: the process that computes it.
        probes: what it is asked.
        folder: gets `inputs/{n}` and `outputs/{n}` for the n-th probe.
    """

    worker: Worker
    probes: tuple[Probe, ...]
    folder: Path


def resolve_tolerance(config: ExportConfig, dtype: str, atol: float | None, rtol: float | None) -> Tolerance:
    """The tolerance to hold an artifact to. A user's `atol` alone is absolute: nothing relative is added to it."""
    if atol is None and rtol is None:
        return config.tolerance(dtype)
    return Tolerance(atol or 0.0, rtol or 0.0)


def not_run(reason: str) -> ArtifactVerdict:
    """The verdict of an artifact that nobody looked at."""
    from hfexport.validation.compare import ArtifactVerdict

    return ArtifactVerdict("not_run", reason=reason)


def start_reference(
    checkpoint: Path,
    config: ExportConfig,
    dtype: str,
    probes: Sequence[Probe],
    *,
    folder: Path,
    env: Mapping[str, str],
) -> Reference:
    """Start computing what the unpatched model answers to `probes`, in a process of its own; return at once."""
    folder = folder.resolve()
    environment = workers.child_environment(env)
    job = {
        "checkpoint": str(checkpoint.resolve()),
        "model_type": config.config.model_type,
        "task": config.task.name,
        "dtype": dtype,
        "probes": [probe.to_dict() for probe in probes],
        "threads": max(1, workers.available_cores(env) - 1),
        "folder": str(folder),
    }
    worker = workers.start(
        "hfexport.validation.reference", job, name="reference", folder=folder, env=environment, failure=ExportError
    )
    return Reference(worker, tuple(probes), folder)


def validate(
    artifact: Artifact,
    config: ExportConfig,
    reference: Reference,
    tolerance: Tolerance,
    *,
    folder: Path,
    env: Mapping[str, str],
) -> ArtifactVerdict:
    """Run `artifact` in a fresh process on the reference's probes and compare every output.

    Raises:
        HfexportError: the reference could not be computed. What is wrong with the artifact is in the verdict.
    """
    from hfexport.validation.arrays import read_arrays
    from hfexport.validation.compare import ArtifactVerdict, ProbeResult, compare_probe

    reference.worker.result(TIMEOUT_S)
    folder = folder.resolve()
    job = {
        "format": artifact.format,
        "path": str(artifact.path.resolve()),
        "input_names": [spec.name for spec in config.inputs],
        "output_names": [spec.name for spec in config.outputs],
        "probes": [probe.to_dict() for probe in reference.probes],
        "threads": workers.available_cores(env),
        "inputs": str(reference.folder / "inputs"),
        "folder": str(folder),
    }
    environment = workers.child_environment(env)
    name = f"runner for {artifact.format}"
    with workers.start("hfexport.validation.runner", job, name=name, folder=folder, env=environment) as worker:
        try:
            answer = worker.result(TIMEOUT_S)
        except ValidationError as error:
            return ArtifactVerdict("failed", tolerance, reason=str(error))
        except HfexportError as error:
            return ArtifactVerdict("failed", tolerance, reason=f"{name}: {error}")
    results: list[ProbeResult] = []
    for number, probe in enumerate(reference.probes):
        if (refusal := answer["errors"].get(str(number))) is not None:
            results.append(ProbeResult(probe, problem=f"the artifact refused it: {refusal}"))
            continue
        found = read_arrays(folder / "outputs" / str(number))
        wanted = read_arrays(reference.folder / "outputs" / str(number))
        results.append(compare_probe(probe, found, wanted, tolerance))
    passed = bool(results) and all(result.passed for result in results)
    return ArtifactVerdict("passed" if passed else "failed", tolerance, tuple(results), session=answer["session"])
