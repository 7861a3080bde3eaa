"""Start the processes that compute references: the unpatched model's outputs for the probes of each graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from msgspec.structs import replace

from hfexport._internal import workers
from hfexport._internal.messages import plain
from hfexport._internal.standby import Standbys
from hfexport.export_config import ExportConfig
from hfexport.export_config.probes import Probe
from hfexport.validation.messages import ReferenceGraph, ReferenceJob
from hfexport.validation.verdict import Exact

__all__ = [
    "REFERENCE_WORKER",
    "Answering",
    "Reference",
    "describe_references",
    "fork_reference",
    "prepare_reference",
    "reference_threads",
    "start_reference",
    "start_references",
    "started_references",
]

REFERENCE_WORKER: Final = "hfexport.validation.reference.worker"


class Answering(Protocol):
    """A reference that is being computed in a process, or is complete."""

    def result(self, timeout_s: float | None = None) -> dict[str, Any]:
        """Wait for the result, with `wall_s` and `peak_rss_bytes`."""
        ...

    def stop(self) -> None:
        """Stop the computation if it is still running."""
        ...


@dataclass(frozen=True)
class Reference:
    """A reference that is being computed or is complete.

    Attributes:
        worker: computes the reference, usually a process.
        probes: probes that the reference runs.
        dtype: `fp32` or `fp16`.
        folder: folder of `inputs/{n}` and `outputs/{n}` for the n-th probe.
        job: job of the process for this graph only; `None` if no process can be asked again.
        exact: higher precision in which the worker also runs the model, into `exact/{n}`; `None` for none.
    """

    worker: Answering
    probes: tuple[Probe, ...]
    dtype: str
    folder: Path
    job: ReferenceJob | None = None
    exact: Exact | None = None


def prepare_reference(standbys: Standbys, checkpoint: Path, env: Mapping[str, str]) -> None:
    """Start the process of the next reference early, so that it imports torch and the model's code meanwhile.

    Args:
        standbys: processes of the run; `start_references` takes the process from there.
        checkpoint: folder of the checkpoint, or the folder that contains it.
        env: environment; the process gets an allow-list of it.
    """
    standbys.prepare(REFERENCE_WORKER, workers.child_environment(env), [str(checkpoint.resolve())])


def fork_reference(standbys: Standbys, checkpoint: Path, env: Mapping[str, str]) -> None:
    """Import torch and the model's code, and fork the process of the next reference from this one.

    It spares the time and the memory of a second import. The fork has seen no model and nothing of an export.

    Args:
        standbys: processes of the run; `start_references` takes the process from there.
        checkpoint: folder of the checkpoint, or the folder that contains it.
        env: environment; the process gets an allow-list of it.
    """
    from hfexport.validation.reference.worker import prepare

    with suppress(Exception):  # reported where the model is read; the reference then is a new interpreter
        prepare(str(checkpoint.resolve()))
        standbys.fork(REFERENCE_WORKER, workers.child_environment(env))


def start_reference(
    checkpoint: Path,
    config: ExportConfig,
    dtype: str,
    probes: Sequence[Probe],
    *,
    folder: Path,
    env: Mapping[str, str],
) -> Reference:
    """Start computing the unpatched model's outputs for `probes` in a process of its own; return at once."""
    return start_references(checkpoint, [(config, probes)], dtype, folder=folder, env=env)[0]


def describe_references(
    checkpoint: Path,
    asked: Sequence[tuple[ExportConfig, Sequence[Probe]]],
    dtype: str,
    *,
    folder: Path,
    threads: int,
    exact_checkpoint: Path | None = None,
) -> ReferenceJob:
    """Return the job of the process that computes the reference for every graph of a model.

    Args:
        checkpoint: folder of the checkpoint.
        asked: graphs of the model, each with its probes.
        dtype: `fp32` or `fp16`.
        folder: folder in which each graph gets a folder.
        threads: number of threads.
        exact_checkpoint: the same weights in float32, which a float16 reference maps to run in float32; if unset, it
            widens those of `checkpoint` in memory.
    """
    graphs = tuple(
        ReferenceGraph(
            recipe=config.recipe,
            probes=tuple(probes),
            folder=str(folder / config.graph),
        )
        for config, probes in asked
    )
    return ReferenceJob(
        checkpoint=str(checkpoint.resolve()),
        graphs=graphs,
        dtype="fp16" if dtype == "fp16" else "fp32",
        threads=threads,
        # float16 is always compared with float32; float32 is compared with float64 only if it misses its tolerance.
        exact="fp32" if dtype == "fp16" else None,
        exact_checkpoint=str((exact_checkpoint or checkpoint).resolve()),
        answered=False,
    )


def reference_threads(env: Mapping[str, str]) -> int:
    """Return the number of threads of a reference: one core is left for making the artifacts meanwhile."""
    return max(1, workers.available_cores(env) - 1)


def started_references(worker: Answering, job: ReferenceJob) -> dict[str, Reference]:
    """Return the reference of each graph of a job that `worker` runs, by name of the graph."""
    return {
        Path(graph.folder).name: Reference(
            worker,
            graph.probes,
            job.dtype,
            Path(graph.folder),
            replace(job, graphs=(graph,)),
            job.exact,
        )
        for graph in job.graphs
    }


def start_references(
    checkpoint: Path,
    asked: Sequence[tuple[ExportConfig, Sequence[Probe]]],
    dtype: str,
    *,
    folder: Path,
    env: Mapping[str, str],
    exact_checkpoint: Path | None = None,
    standbys: Standbys | None = None,
) -> tuple[Reference, ...]:
    """Start one process that computes the reference for every graph of a model.

    Args:
        checkpoint: folder of the checkpoint.
        asked: graphs of the model, each with its probes.
        dtype: `fp32` or `fp16`.
        folder: folder of the process, in which each graph gets a folder.
        env: environment; the process gets an allow-list of it.
        exact_checkpoint: see `describe_references`.
        standbys: processes that were started early, see `prepare_reference`.

    Returns:
        A reference for each graph, in order; all use the same process.
    """
    folder = folder.resolve()
    job = describe_references(
        checkpoint,
        asked,
        dtype,
        folder=folder,
        threads=reference_threads(env),
        exact_checkpoint=exact_checkpoint,
    )
    worker = workers.start(
        REFERENCE_WORKER,
        plain(job),
        name="reference",
        folder=folder,
        env=workers.child_environment(env),
        kind="transformers",
        standbys=standbys,
    )
    return tuple(
        Reference(worker, tuple(probes), dtype, folder / config.graph, replace(job, graphs=(graph,)), job.exact)
        for (config, probes), graph in zip(asked, job.graphs, strict=True)
    )
