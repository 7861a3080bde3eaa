"""Validation: what the unpatched model answers, what the artifact answers, and whether they are the same.

The reference runs while artifacts are made; each artifact is run in a fresh process that did not make it.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from hfexport._internal import workers
from hfexport._internal.process import Limits
from hfexport.backends.base import Artifact
from hfexport.errors import HfexportError, ValidationError
from hfexport.export_config import ExportConfig, Tolerance
from hfexport.export_config.probes import Probe
from hfexport.validation.verdict import ArtifactVerdict, Check, Exact, OutputResult, ProbeResult, all_of, not_run
from hfexport.validation.weights import Stored

__all__ = [
    "ArtifactVerdict",
    "Check",
    "OutputResult",
    "ProbeResult",
    "Reference",
    "all_of",
    "not_run",
    "resolve_tolerance",
    "start_reference",
    "start_references",
    "timeout_for",
    "validate",
]

TIMEOUT_S = 3600.0
"""What a reference and a runner may take where the caller does not say; compiled artifacts are given it."""

LEAST_TIMEOUT_S = 900.0
TIMEOUT_S_PER_GB = 900.0

MEMORY_BYTES = 2**33
MEMORY_SHARE = 6
"""Memory that an artifact of a stranger may have, beside this many times its weights."""
FILE_BYTES = 2**32
"""Size that a file may get which it writes, beside that of its weights; outputs are written to files."""

_STOPPED_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGXCPU)
"""Signals that say nothing of the artifact, unlike those of a crash."""


class Answering(Protocol):
    """Computes the reference: a worker, or whatever has computed it already."""

    def result(self, timeout_s: float | None = None) -> dict[str, Any]:
        """Wait for it; gives `wall_s` and `peak_rss_bytes`."""
        ...

    def stop(self) -> None:
        """Stop it, if it still runs."""
        ...


@dataclass(frozen=True)
class Reference:
    """A reference that is being computed, or is done.

    Attributes:
        worker: what computes it, most often a process.
        probes: what it is asked.
        dtype: `fp32` or `fp16`.
        folder: gets `inputs/{n}` and `outputs/{n}` for the n-th probe.
        job: what the process was asked for this graph alone; `None` if no process can be asked again.
        exact: the higher precision whose answers the worker also gives, in `exact/{n}`; `None` for none.
    """

    worker: Answering
    probes: tuple[Probe, ...]
    dtype: str
    folder: Path
    job: Mapping[str, Any] | None = None
    exact: Exact | None = None


def resolve_tolerance(config: ExportConfig, dtype: str, atol: float | None, rtol: float | None) -> Tolerance:
    """The tolerance to hold an artifact to. A user's `atol` alone is absolute: nothing relative is added to it."""
    default = config.tolerance(dtype)
    if atol is None:
        return default if rtol is None else Tolerance(default.atol, rtol)
    return Tolerance(atol, 0.0 if rtol is None else rtol)


def timeout_for(weight_bytes: int) -> float:
    """How long a reference or a runner may take, in seconds, by the size of the weights that it reads."""
    return LEAST_TIMEOUT_S + TIMEOUT_S_PER_GB * weight_bytes / 1e9


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
    return start_references(checkpoint, [(config, probes)], dtype, folder=folder, env=env)[0]


def start_references(
    checkpoint: Path,
    asked: Sequence[tuple[ExportConfig, Sequence[Probe]]],
    dtype: str,
    *,
    folder: Path,
    env: Mapping[str, str],
    exact_checkpoint: Path | None = None,
) -> tuple[Reference, ...]:
    """Start one process that answers for every graph of a model.

    Args:
        checkpoint: folder of the checkpoint.
        asked: the graphs, which share the model, each with its probes.
        dtype: `fp32` or `fp16`.
        folder: gets a folder for every graph.
        env: the environment of which the process sees an allow-list.
        exact_checkpoint: the same weights in float32, which a float16 reference maps for its second answers; if unset, it
            widens those of `checkpoint` in memory.

    Returns:
        A reference for each graph, in order; they share the process.
    """
    folder = folder.resolve()
    # float16 is always held against float32; float32 is held against float64 only where it misses its tolerance.
    exact: Exact | None = "fp32" if dtype == "fp16" else None
    graphs = [
        {
            "recipe": dict(config.recipe),
            "probes": [probe.to_dict() for probe in probes],
            "folder": str(folder / config.graph),
        }
        for config, probes in asked
    ]
    job = {
        "checkpoint": str(checkpoint.resolve()),
        "graphs": graphs,
        "dtype": dtype,
        # One core is left to what makes the artifacts meanwhile.
        "threads": max(1, workers.available_cores(env) - 1),
        "exact": exact,
        "exact_checkpoint": str((exact_checkpoint or checkpoint).resolve()),
        "answered": False,
    }
    environment = workers.child_environment(env)
    worker = workers.start(
        "hfexport.validation.reference.worker",
        job,
        name="reference",
        folder=folder,
        env=environment,
        kind="transformers",
    )
    return tuple(
        Reference(worker, tuple(probes), dtype, folder / config.graph, {**job, "graphs": [graph]}, exact)
        for (config, probes), graph in zip(asked, graphs, strict=True)
    )


def validate(
    artifact: Artifact,
    config: ExportConfig,
    reference: Reference,
    tolerance: Tolerance,
    *,
    folder: Path,
    env: Mapping[str, str],
    companions: Sequence[tuple[Artifact, ExportConfig]] = (),
    timeout_s: float = TIMEOUT_S,
    limited: bool = False,
    by_precision: bool = True,
) -> ArtifactVerdict:
    """Run `artifact` in a fresh process on the reference's probes and compare every output.

    Args:
        artifact: what to run; one of fixed sizes needs a reference that was asked `fixed_probes`.
        config: the interface it should have; of an artifact with branches, that of the branch to ask.
        reference: asked for; waited for if it is still being computed.
        tolerance: see `resolve_tolerance`.
        folder: for the runner's files; its outputs are deleted once they are compared.
        env: the environment of which children see an allow-list.
        companions: the other graphs of the same model, which take part in generation.
        timeout_s: how long the reference and the runner may take, each.
        limited: whether the runner gets limits of memory, processor time and file size: see `runner_limits`.
        by_precision: judge float16, and float32 that misses the tolerance, by the model in higher precision; false where the
            user set the tolerance.

    Returns:
        `passed`, `failed` or, where the model's values vary too little to tell right from wrong, `incomplete`; with the
        reasons.

    Raises:
        ValidationError: the artifact could not be judged: its runner, or the reference, was killed or took too long.
        HfexportError: the reference could not be computed, or a process ended with a traceback.
    """
    from hfexport.validation.judge import Answers, judge_all
    from hfexport.validation.weights import prove, read_hashes

    answered = reference.worker.result(timeout_s)
    stages = {"reference": _stage(answered)}
    folder = folder.resolve()
    name = f"runner for {artifact.format}"
    known = _known_weights(artifact, config, reference)
    job = _runner_job(
        [*companions, (artifact, config)], reference, folder, workers.available_cores(env), hash_weights=bool(known)
    )
    environment = workers.child_environment(env)
    kind = "" if artifact.format == "onnx" else "torch"
    limits = runner_limits(job["weight_bytes"], timeout_s, job["threads"]) if limited else None
    with workers.start(
        "hfexport.validation.runner", job, name=name, folder=folder, env=environment, kind=kind, limits=limits
    ) as worker:
        try:
            answer = worker.result(timeout_s)
        except ValidationError as error:
            if worker.timed_out or worker.died_of in _STOPPED_FROM_OUTSIDE:
                raise ValidationError(
                    f"{artifact.format}: not checked, because {error.message}", remedy=error.remedy
                ) from error
            return ArtifactVerdict("failed", tolerance, reason=error.message, stages=stages)
    stages["runner"] = _stage(answer)
    answers = Answers(
        config,
        reference.probes,
        reference.dtype,
        reference.folder,
        folder,
        answer["refusals"],
        tolerance,
        answer["refused_again"],
    )
    results = judge_all(
        answers,
        exact=by_precision and reference.exact is not None,
        ask_exactly=lambda: (
            by_precision and reference.dtype == "fp32" and _ask_exactly(reference, "fp64", env, timeout_s)
        ),
    )
    shutil.rmtree(folder / "outputs", ignore_errors=True)
    verdict = _verdict(results, tolerance, reference.dtype, by_precision, answer["session"], stages)
    verdict = replace(verdict, left_out=tuple(answered.get("left_out", {}).get(config.graph, ())))
    stored = read_hashes(folder) if known else None
    return verdict if stored is None else verdict.with_weights(prove(stored, tuple(known.values()), tuple(known)))


def _verdict(
    results: tuple[ProbeResult, ...],
    tolerance: Tolerance,
    dtype: str,
    by_precision: bool,
    session: str,
    stages: Mapping[str, Mapping[str, Any]],
) -> ArtifactVerdict:
    """Conclude from the results of all probes: an artifact that passed them is `incomplete` if they prove too little."""
    from hfexport.validation.evidence import unproved

    if not results:
        return ArtifactVerdict("failed", tolerance, (), "no probe was asked", session, stages)
    if not all(result.passed for result in results):
        return ArtifactVerdict("failed", tolerance, results, "", session, stages)
    check = unproved(results, tolerance, dtype, by_precision=by_precision)
    if check is None:
        return ArtifactVerdict("passed", tolerance, results, "", session, stages)
    return ArtifactVerdict("incomplete", tolerance, results, check.reason, session, stages, (check,))


def runner_limits(weight_bytes: int, timeout_s: float, threads: int) -> Limits:
    """What a run time may use for an artifact that a stranger made: several copies of its weights, and room beside them."""
    return Limits(
        MEMORY_BYTES + MEMORY_SHARE * weight_bytes, int(timeout_s * max(1, threads)), FILE_BYTES + weight_bytes
    )


def _runner_job(
    graphs: Sequence[tuple[Artifact, ExportConfig]],
    reference: Reference,
    folder: Path,
    threads: int,
    *,
    hash_weights: bool,
) -> dict[str, Any]:
    """The job of the last of `graphs`; the others are loaded only if it takes part in a generation."""
    artifact, config = graphs[-1]
    generates = any(probe.greedy_steps for probe in reference.probes)
    floats = {"fp32": "float32", "fp16": "float16"}[reference.dtype]
    return {
        "format": artifact.format,
        "weight_bytes": sum(file.stat().st_size for file in artifact.files if file.is_file()),
        "threads": threads,
        "graphs": [_graph_job(made, described, floats) for made, described in (graphs if generates else graphs[-1:])],
        "greedy_steps": [probe.greedy_steps for probe in reference.probes],
        "reorders": [probe.reorders for probe in reference.probes],
        "start_token": config.start_token,
        "reference": str(reference.folder),
        "folder": str(folder),
        "hash_weights": hash_weights,
    }


def _graph_job(artifact: Artifact, config: ExportConfig, floats: str) -> dict[str, Any]:
    """What a runner has to know of a graph: its file's interface, and its own, if the file has several branches."""
    whole = artifact.config if artifact.config is not None and len(artifact.config.branches) > 1 else config
    own = {"inputs": [spec.name for spec in config.inputs], "outputs": [spec.name for spec in config.outputs]}
    return {
        "graph": config.graph,
        "path": str(
            artifact.path.absolute()
        ),  # not resolved: external data lies beside the name, not beside what it links to
        "inputs": [[spec.name, floats if spec.dtype == "float" else spec.dtype] for spec in whole.inputs],
        "outputs": [spec.name for spec in whole.outputs],
        "branch": None if whole is config else own,
    }


def _ask_exactly(reference: Reference, exact: Exact, env: Mapping[str, str], timeout_s: float) -> bool:
    """Ask the model in higher precision what it was asked already; returns whether it answered."""
    if reference.job is None or not _fits_in_memory(Path(reference.job["exact_checkpoint"])):
        return False
    job = {**reference.job, "exact": exact, "answered": True}
    shutil.rmtree(reference.folder / "exact", ignore_errors=True)
    with workers.start(
        "hfexport.validation.reference.worker",
        job,
        name=f"reference in {exact}",
        folder=reference.folder / f"ask-{exact}",
        env=workers.child_environment(env),
        kind="transformers",
    ) as worker:
        try:
            worker.result(timeout_s)
        except HfexportError:
            return False  # the answer that is there stands
    return True


def _known_weights(artifact: Artifact, config: ExportConfig, reference: Reference) -> dict[str, dict[str, Stored]]:
    """Read the hashes of the model's tensors for each graph of a file; empty if the file is not to be checked here.

    A file that answers as several graphs is checked with the first of them.
    """
    from hfexport.validation.weights import read_hashes

    branches = (artifact.config or config).branches
    if config.graph != branches[0].graph:
        return {}
    folders = {branch.graph: reference.folder.parent / branch.graph for branch in branches}
    if len(branches) == 1:
        folders = {config.graph: reference.folder}
    known = {graph: read_hashes(folder) for graph, folder in folders.items()}
    return {graph: hashes for graph, hashes in known.items() if hashes is not None}


def _fits_in_memory(checkpoint: Path) -> bool:
    """Whether weights can be widened to float64 in memory: four times the bytes of a half-precision file, with room."""
    from hfexport.validation.memory import available_bytes

    available = available_bytes()
    weights = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))
    return available is None or 6 * weights < available


def _stage(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {"wall_s": answer["wall_s"], "peak_rss_bytes": answer["peak_rss_bytes"]}
