"""Run the model and its variants on the same inputs, and measure how far each variant is from the model."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, cast

from hfexport._internal import workers
from hfexport._internal.messages import plain as to_values
from hfexport._internal.messages import read
from hfexport.errors import HfexportError
from hfexport.export_config import ExportConfig
from hfexport.export_config.probes import Probe
from hfexport.validation.quality.messages import ModelAnswer, ModelGraph, ModelJob, StoredAnswer, StoredJob
from hfexport.validation.quality.thresholds import LIMITS, Limits

if TYPE_CHECKING:
    from hfexport.backends.base import Artifact
    from hfexport.validation.quality.measures import Compared

_FLOATS: Final = {"fp32": "float32", "fp16": "float16"}

__all__ = ["MadeVariant", "Measure", "ModelAnswers", "Quality", "measure_variant", "not_measured", "start_model"]


@dataclass(frozen=True)
class Measure:
    """One measure of one graph.

    Attributes:
        graph: name of the graph.
        name: name of the measure, see docs/variants.md.
        value: measured value.
        at_least: least allowed value; `None` if it has none.
        at_most: largest allowed value; `None` if it has none.
    """

    graph: str
    name: str
    value: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def passed(self) -> bool:
        """Return whether the value is a number within its limits."""
        low = -math.inf if self.at_least is None else self.at_least
        high = math.inf if self.at_most is None else self.at_most
        return not math.isnan(self.value) and low <= self.value <= high


@dataclass(frozen=True)
class Quality:
    """Measured quality of a variant.

    Attributes:
        verdict: `passed`, `failed`, or `not_run`.
        reason: reason of a verdict that the measures do not explain.
        data: name of the data on which it was measured; `probes` for inputs drawn from a seed.
        samples: number of texts.
        measures: measures of all graphs.
    """

    verdict: Literal["passed", "failed", "not_run"]
    reason: str = ""
    data: str = ""
    samples: int = 0
    measures: tuple[Measure, ...] = ()

    @property
    def failures(self) -> tuple[str, ...]:
        """Return one line for each measure outside of its limits, and the reason of a failure."""
        lines = [self.reason] if self.verdict == "failed" and self.reason else []
        for measure in self.measures:
            if not measure.passed:
                limit = (
                    f"at least {measure.at_least:g}" if measure.at_least is not None else f"at most {measure.at_most:g}"
                )
                lines.append(f"{measure.graph}: {measure.name} is {measure.value:.4g}, should be {limit}")
        return tuple(lines)


def not_measured(reason: str) -> Quality:
    """Return the quality of a variant that was not measured."""
    return Quality("not_run", reason)


@dataclass(frozen=True)
class MadeVariant:
    """A variant of a model.

    Attributes:
        name: name of the variant.
        artifacts: its files, one for each graph.
        quality: its measured quality.
        size_share: size relative to the float32 files.
        notes: remarks for the report.
    """

    name: str
    artifacts: tuple[Artifact, ...]
    quality: Quality
    size_share: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelAnswers:
    """The model's outputs on the inputs for variants, which a process computes.

    Attributes:
        worker: computes them.
        folder: has `inputs/{n}` and `outputs/{n}` of each graph in a folder of its name.
    """

    worker: workers.Worker
    folder: Path


def start_model(
    checkpoint: Path,
    graphs: Sequence[ExportConfig],
    *,
    tokenizer: Path,
    data: str | None,
    folder: Path,
    env: Mapping[str, str],
) -> ModelAnswers:
    """Start running the model in float32 in a process of its own; return at once.

    Args:
        checkpoint: folder with float32 weights.
        graphs: graphs of the model.
        tokenizer: folder with the checkpoint's tokenizer.
        data: path of the user's data; `None` for the texts that ship here.
        folder: new folder for inputs and outputs.
        env: environment; the process gets an allow-list of it.
    """
    folder = folder.resolve()
    job = ModelJob(
        checkpoint=str(checkpoint.resolve()),
        tokenizer=str(tokenizer.resolve()),
        data=data,
        threads=workers.available_cores(env),
        graphs=tuple(ModelGraph(recipe=graph.recipe, folder=str(folder / graph.graph)) for graph in graphs),
    )
    worker = workers.start(
        "hfexport.validation.quality.reference",
        to_values(job),
        name="model for variants",
        folder=folder,
        env=workers.child_environment(env),
        kind="transformers",
    )
    return ModelAnswers(worker, folder)


def measure_variant(
    artifacts: Sequence[Artifact],
    plain: Sequence[Artifact],
    answers: ModelAnswers,
    limits: str,
    *,
    folder: Path,
    env: Mapping[str, str],
    timeout_s: float,
    min_similarity: float | None = None,
    limited: bool = False,
    compare_weights: bool = True,
) -> Quality:
    """Run every graph of a variant in new processes and compare its outputs with the model's.

    Args:
        artifacts: files of the variant, one for each graph of the model, in the order in which generation runs them.
        plain: files of the model in float32 or float16, in the same order, whose weights the variant's must be, rounded.
        answers: the model's outputs; waited for if they are still being computed.
        limits: limits of the measures, a key of `thresholds.LIMITS`.
        folder: folder for the runners' files, which are removed.
        env: environment; child processes get an allow-list of it.
        timeout_s: time limit of each process, in seconds.
        min_similarity: least mean cosine similarity, instead of the kind's.
        limited: limit memory, processor time and file size of the runners, for files made elsewhere.
        compare_weights: compare stored weights with the plain files'; not for files in which they were folded.

    Raises:
        HfexportError: the model could not be run.
    """
    described = read(answers.worker.result(timeout_s), ModelAnswer)
    data, samples = described.data, described.samples
    made: list[tuple[Artifact, ExportConfig]] = []
    measures: list[Measure] = []
    for artifact, source in zip(artifacts, plain, strict=True):
        assert artifact.config is not None
        try:
            stored = _stored(artifact, source, folder, env, timeout_s) if compare_weights else None
        except HfexportError as error:
            return Quality("failed", error.message.replace(f"{artifact.path.parent}/", ""), data, samples)
        if stored is not None and stored.missing:
            reason = f"{artifact.path.name}: lacks the weights {', '.join(stored.missing[:5])}"
            return Quality("failed", reason, data, samples)
        if stored is not None:
            measures.append(Measure(artifact.config.graph, "weight_error", stored.error, at_most=1.0))
        for config in artifact.config.branches:
            made.append((artifact, config))
            cases = [(case.probe, case.real) for case in described.graphs[config.graph]]
            place = folder / config.graph
            try:
                refused = _run(made, cases, answers.folder / config.graph, place, env, timeout_s, limited=limited)
            except HfexportError as error:
                return Quality("failed", error.message.replace(f"{artifact.path.parent}/", ""), data, samples)
            if refused:
                return Quality("failed", f"{artifact.path.name}: {refused}", data, samples)
            measures.extend(
                _measures(config, cases, answers.folder / config.graph, place, LIMITS[limits], min_similarity)
            )
            shutil.rmtree(place, ignore_errors=True)
    passed = bool(measures) and all(measure.passed for measure in measures)
    return Quality("passed" if passed else "failed", "", data, samples, tuple(measures))


def _stored(
    artifact: Artifact, plain: Artifact, folder: Path, env: Mapping[str, str], timeout_s: float
) -> StoredAnswer:
    """Compare the stored weights of a file with the plain file's."""
    assert artifact.config is not None
    place = folder / f"stored-{artifact.config.graph}"
    job = StoredJob(
        format=cast("Literal['onnx', 'torchscript']", artifact.format),
        plain=str(plain.path.absolute()),
        variant=str(artifact.path.absolute()),
    )
    name = f"weights of {artifact.path.name}"
    environment = workers.child_environment(env)
    with workers.start(
        "hfexport.validation.quality.stored",
        to_values(job),
        name=name,
        folder=place,
        env=environment,
        kind="transformers",
    ) as worker:
        return read(worker.result(timeout_s), StoredAnswer)


def _run(
    graphs: Sequence[tuple[Artifact, ExportConfig]],
    cases: Sequence[tuple[Probe, bool]],
    reference: Path,
    folder: Path,
    env: Mapping[str, str],
    timeout_s: float,
    *,
    limited: bool,
) -> str:
    """Run the last of `graphs` on all cases; return the runtime's error if it rejects one."""
    from hfexport.validation.limits import runner_limits
    from hfexport.validation.messages import RunnerAnswer, RunnerJob
    from hfexport.validation.validate import graph_job

    artifact, config = graphs[-1]
    generates = any(probe.greedy_steps for probe, _ in cases)
    used = graphs if generates else graphs[-1:]
    job = RunnerJob(
        format=artifact.format,
        weight_bytes=sum(file.stat().st_size for file in artifact.files),
        threads=workers.available_cores(env),
        graphs=tuple(graph_job(made, part, _FLOATS[made.dtype or "fp32"]) for made, part in used),
        greedy_steps=tuple(probe.greedy_steps for probe, _ in cases),
        reorders=(False,) * len(cases),
        start_token=config.start_token,
        reference=str(reference),
        folder=str(folder.resolve()),
        hash_weights=False,
    )
    with workers.start(
        "hfexport.validation.runner",
        to_values(job),
        name=f"runner for {artifact.path.name}",
        folder=folder,
        env=workers.child_environment(env),
        kind="onnx" if artifact.format == "onnx" else "torch",
        limits=runner_limits(job.weight_bytes, timeout_s, job.threads) if limited else None,
    ) as worker:
        answer = read(worker.result(timeout_s), RunnerAnswer)
    refusals = [*answer.refusals.values(), answer.refused_again]
    return next((refusal for refusal in refusals if refusal), "")


def _measures(
    config: ExportConfig,
    cases: Sequence[tuple[Probe, bool]],
    reference: Path,
    folder: Path,
    limits: Limits,
    min_similarity: float | None,
) -> list[Measure]:
    from hfexport.validation.quality.measures import measure

    def compared() -> Iterator[Compared]:
        from hfexport.validation.arrays import read_arrays
        from hfexport.validation.quality.measures import Compared

        for number, (probe, real) in enumerate(cases):
            inputs = read_arrays(reference / "inputs" / str(number))
            model = read_arrays(reference / "outputs" / str(number))
            variant = read_arrays(folder / "outputs" / str(number))
            yield Compared(probe, real, inputs, model, variant)

    found = measure(config, compared())
    return [_limited(config.graph, name, value, limits, min_similarity) for name, value in found.items()]


def _limited(graph: str, name: str, value: float, limits: Limits, min_similarity: float | None) -> Measure:
    """Attach the limits of a measure. A similarity below the table's, asked for by the user, lifts the other limits."""
    if min_similarity is not None:
        if name == "mean_cosine":
            return Measure(graph, name, value, min_similarity)
        if min_similarity < limits.mean_cosine:
            return Measure(graph, name, value)
    return Measure(graph, name, value, limits.least(name), limits.most(name))
