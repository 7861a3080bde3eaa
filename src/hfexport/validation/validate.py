"""Run an artifact in a new process, and compare its outputs with those of the unpatched model."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from msgspec import structs

from hfexport._internal import workers
from hfexport._internal.messages import plain, read
from hfexport._internal.standby import Standbys
from hfexport.backends.base import Artifact
from hfexport.errors import HfexportError, ValidationError
from hfexport.export_config import ExportConfig, Tolerance
from hfexport.validation.limits import runner_limits
from hfexport.validation.messages import Branch, GraphFile, ReferenceAnswer, RunnerAnswer, RunnerJob
from hfexport.validation.reference.start import Reference
from hfexport.validation.verdict import ArtifactVerdict, Exact, ProbeResult
from hfexport.validation.weights import Stored

__all__ = ["graph_job", "prepare_runner", "validate"]

_RUNNER: Final = "hfexport.validation.runner"

_STOPPED_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGXCPU)
"""Signals that are no failure of the artifact, unlike those of a crash."""


def prepare_runner(standbys: Standbys, format_name: str, env: Mapping[str, str]) -> None:
    """Start the process of the next runner early, so that it imports the format's runtime meanwhile."""
    standbys.prepare(_RUNNER, workers.child_environment(env), [format_name])


def validate(
    artifact: Artifact,
    config: ExportConfig,
    reference: Reference,
    tolerance: Tolerance,
    *,
    folder: Path,
    env: Mapping[str, str],
    companions: Sequence[tuple[Artifact, ExportConfig]] = (),
    timeout_s: float,
    limited: bool = False,
    by_precision: bool = True,
    compare_weights: bool = True,
    standbys: Standbys | None = None,
) -> ArtifactVerdict:
    """Run `artifact` in a new process on the reference's probes and compare every output.

    Args:
        artifact: artifact to run; for fixed sizes, the reference must use `fixed_probes`.
        config: expected interface; for an artifact with branches, that of the branch to run.
        reference: reference to compare with; it is waited for if it is still being computed.
        tolerance: see `resolve_tolerance`.
        folder: folder for the runner's files; its outputs are deleted after the comparison.
        env: environment; child processes get an allow-list of it.
        companions: other graphs of the same model that generation needs.
        timeout_s: time limit of the reference and of the runner, each.
        limited: limit the runner's memory, processor time and file size, see `runner_limits`.
        by_precision: judge float16, and float32 that misses the tolerance, by the model in higher precision; false if
            the user set the tolerance.
        compare_weights: compare stored tensors with the model's; not for traces of another version of transformers.
        standbys: processes that were started early, see `prepare_runner`.

    Returns:
        `passed`, `failed` or, if the model's values vary too little for a conclusion, `incomplete`; with the reasons.

    Raises:
        ValidationError: there is no result: the runner or the reference was killed or took too long.
        HfexportError: the reference could not be computed, or a process ended with a traceback.
    """
    from hfexport.validation.judge import Answers, judge_all
    from hfexport.validation.weights import prove, read_hashes

    folder = folder.resolve()
    name = f"runner for {artifact.format}"
    first = config.graph == (artifact.config or config).branches[0].graph
    job = _runner_job(
        [*companions, (artifact, config)],
        reference,
        folder,
        workers.available_cores(env),
        hash_weights=compare_weights and first,  # a file with several graphs is checked with the first of them
    )
    if not _fits_beside_reference(job.weight_bytes):
        reference.worker.result(timeout_s)
    environment = workers.child_environment(env)
    kind = "onnx" if artifact.format == "onnx" else "torch"
    limits = runner_limits(job.weight_bytes, timeout_s, job.threads) if limited else None
    with workers.start(
        _RUNNER,
        plain(job),
        name=name,
        folder=folder,
        env=environment,
        kind=kind,
        limits=limits,
        standbys=standbys,
    ) as worker:
        # The runner loads the artifact and runs each probe as soon as the reference has written it.
        answered = read(reference.worker.result(timeout_s), ReferenceAnswer)
        try:
            answer = read(worker.result(timeout_s), RunnerAnswer)
        except ValidationError as error:
            if worker.timed_out or worker.died_of in _STOPPED_FROM_OUTSIDE:
                raise ValidationError(
                    f"{artifact.format}: not checked, because {error.message}", remedy=error.remedy
                ).by(error.failed_by) from error
            return ArtifactVerdict("failed", tolerance, reason=error.message)
    answers = Answers(
        config,
        reference.probes,
        reference.dtype,
        reference.folder,
        folder,
        answer.refusals,
        tolerance,
        answer.refused_again,
    )
    results = judge_all(
        answers,
        exact=by_precision and reference.exact is not None,
        ask_exactly=lambda: (
            by_precision and reference.dtype == "fp32" and _ask_exactly(reference, "fp64", env, timeout_s)
        ),
    )
    shutil.rmtree(folder / "outputs", ignore_errors=True)
    verdict = _verdict(results, tolerance, reference.dtype, by_precision, answer.session)
    verdict = replace(verdict, left_out=answered.left_out.get(config.graph, ()))
    known = _known_weights(artifact, config, reference) if job.hash_weights else {}
    stored = read_hashes(folder) if known else None
    return verdict if stored is None else verdict.with_weights(prove(stored, tuple(known.values()), tuple(known)))


def _verdict(
    results: tuple[ProbeResult, ...],
    tolerance: Tolerance,
    dtype: str,
    by_precision: bool,
    session: str,
) -> ArtifactVerdict:
    """Combine the results of all probes. An artifact that passed is `incomplete` if its values prove too little."""
    from hfexport.validation.evidence import unproved

    if not results:
        return ArtifactVerdict("failed", tolerance, (), "no probe was run", session)
    if not all(result.passed for result in results):
        return ArtifactVerdict("failed", tolerance, results, "", session)
    check = unproved(results, tolerance, dtype, by_precision=by_precision)
    if check is None:
        return ArtifactVerdict("passed", tolerance, results, "", session)
    return ArtifactVerdict("incomplete", tolerance, results, check.reason, session, (check,))


def _runner_job(
    graphs: Sequence[tuple[Artifact, ExportConfig]],
    reference: Reference,
    folder: Path,
    threads: int,
    *,
    hash_weights: bool,
) -> RunnerJob:
    """Return the runner's job for the last of `graphs`; the others are loaded only if it takes part in generation."""
    artifact, config = graphs[-1]
    generates = any(probe.greedy_steps for probe in reference.probes)
    floats = {"fp32": "float32", "fp16": "float16"}[reference.dtype]
    used = graphs if generates else graphs[-1:]
    return RunnerJob(
        format=artifact.format,
        weight_bytes=sum(file.stat().st_size for file in artifact.files if file.is_file()),
        threads=threads,
        graphs=tuple(graph_job(made, described, floats) for made, described in used),
        greedy_steps=tuple(probe.greedy_steps for probe in reference.probes),
        reorders=tuple(probe.reorders for probe in reference.probes),
        start_token=config.start_token,
        reference=str(reference.folder),
        folder=str(folder),
        hash_weights=hash_weights,
    )


def graph_job(artifact: Artifact, config: ExportConfig, floats: str) -> GraphFile:
    """Describe a graph for the runner: its file's interface, and its own if the file has several branches."""
    whole = artifact.config if artifact.config is not None and len(artifact.config.branches) > 1 else config
    own = Branch(inputs=tuple(spec.name for spec in config.inputs), outputs=tuple(spec.name for spec in config.outputs))
    return GraphFile(
        graph=config.graph,
        path=str(artifact.path.absolute()),  # not resolved: external data is in the link's folder, not its target's
        inputs=tuple((spec.name, floats if spec.dtype == "float" else spec.dtype) for spec in whole.inputs),
        outputs=tuple(spec.name for spec in whole.outputs),
        branch=None if whole is config else own,
    )


def _ask_exactly(reference: Reference, exact: Exact, env: Mapping[str, str], timeout_s: float) -> bool:
    """Run the model on the same inputs in higher precision; return whether it ran."""
    if reference.job is None or not _fits_in_memory(Path(reference.job.exact_checkpoint)):
        return False
    job = structs.replace(reference.job, exact=exact, answered=True)
    shutil.rmtree(reference.folder / "exact", ignore_errors=True)
    with workers.start(
        "hfexport.validation.reference.worker",
        plain(job),
        name=f"reference in {exact}",
        folder=reference.folder / f"ask-{exact}",
        env=workers.child_environment(env),
        kind="transformers",
    ) as worker:
        try:
            worker.result(timeout_s)
        except HfexportError:
            return False  # keep the existing result
    return True


def _known_weights(artifact: Artifact, config: ExportConfig, reference: Reference) -> dict[str, dict[str, Stored]]:
    """Return the hashes of the model's tensors for each graph of a file, as far as the reference has written them."""
    from hfexport.validation.weights import read_hashes

    branches = (artifact.config or config).branches
    folders = {branch.graph: reference.folder.parent / branch.graph for branch in branches}
    if len(branches) == 1:
        folders = {config.graph: reference.folder}
    known = {graph: read_hashes(folder) for graph, folder in folders.items()}
    return {graph: hashes for graph, hashes in known.items() if hashes is not None}


def _fits_in_memory(checkpoint: Path) -> bool:
    """Return whether weights can be widened to float64 in memory: four times the bytes of a half-precision file."""
    from hfexport.validation.memory import available_bytes

    available = available_bytes()
    weights = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))
    return available is None or 6 * weights < available


def _fits_beside_reference(weight_bytes: int) -> bool:
    """Return whether memory has room for the runner while the reference runs; else it starts afterwards.

    Args:
        weight_bytes: size of the artifact, in bytes.
    """
    from hfexport.validation.memory import available_bytes
    from hfexport.validation.sessions import MAPPED_FROM_BYTES, ROOM_FOR_COPIES

    available = available_bytes()
    return weight_bytes <= MAPPED_FROM_BYTES and (available is None or 2 * ROOM_FOR_COPIES * weight_bytes < available)
