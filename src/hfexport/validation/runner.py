"""Run one artifact as a user would, in a new process that did not make it, and write its outputs.

Runs as a child process (see `hfexport._internal.workers`).
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from hfexport._internal.messages import plain, read
from hfexport.validation.arrays import await_arrays, read_arrays, write_arrays
from hfexport.validation.generation import decode
from hfexport.validation.messages import GraphFile, RunnerAnswer, RunnerJob
from hfexport.validation.sessions import (
    BranchSession,
    Expected,
    OnnxSession,
    Refusal,
    Session,
    TorchScriptSession,
    open_session,
)
from hfexport.validation.weights import hash_onnx, hash_torchscript, write_hashes

__all__ = ["open_graph", "prepare", "run"]


def prepare(format_name: str) -> None:
    """Import the runtime of a format, before the job is known."""
    if format_name == "onnx":
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    else:
        import torch  # noqa: F401


def run(values: Mapping[str, Any]) -> dict[str, Any]:
    """Run the artifact on every probe, one at a time, each as soon as the reference has written what it needs.

    Args:
        values: those of a `RunnerJob`.

    Returns:
        Values of a `RunnerAnswer`.

    Raises:
        ValidationError: the artifact does not load, or has another interface.
    """
    job = read(values, RunnerJob)
    files: dict[str, Session] = {}
    hashing = None
    with ThreadPoolExecutor(1) as beside:
        if job.hash_weights and job.format == "onnx":
            # While ONNX Runtime loads the file, with one core.
            hashing = beside.submit(hash_onnx, Path(job.graphs[-1].path))
        sessions = {
            graph.graph: open_graph(
                graph, files, format_name=job.format, weight_bytes=job.weight_bytes, threads=job.threads
            )
            for graph in job.graphs
        }
    if hashing is not None:
        # A damaged file has been refused by ONNX Runtime before this raises its own error.
        write_hashes(hashing.result(), Path(job.folder))
    session = sessions[job.graphs[-1].graph]
    if job.hash_weights and isinstance(session, TorchScriptSession):
        write_hashes(hash_torchscript(session.module), Path(job.folder))
    reference = Path(job.reference)
    refusals: dict[str, str] = {}
    for number, (steps, reorders) in enumerate(zip(job.greedy_steps, job.reorders, strict=True)):
        inputs = await_arrays(reference / "inputs" / str(number))
        try:
            if steps:
                tokens = np.asarray(await_arrays(reference / "outputs" / str(number))["tokens"])
                outputs = decode(sessions, inputs, tokens, job.start_token, reorders=reorders)
            else:
                outputs = session.ask(inputs)
        except Refusal as refusal:
            refusals[str(number)] = str(refusal)
            continue
        write_arrays(Path(job.folder) / "outputs" / str(number), outputs)
    again = _ask_first_again(session, job, refusals)
    return plain(RunnerAnswer(session=session.kind, refusals=refusals, refused_again=again))


def _ask_first_again(session: Session, job: RunnerJob, refusals: Mapping[str, str]) -> str:
    """Run the first probe again after all others; return the runtime's error if it fails now.

    TorchScript specialises a graph by earlier inputs, and an artifact may keep a state.
    """
    if not job.greedy_steps or job.greedy_steps[0] or "0" in refusals:
        return ""
    try:
        outputs = session.ask(read_arrays(Path(job.reference) / "inputs" / "0"))
    except Refusal as refusal:
        return str(refusal)
    write_arrays(Path(job.folder) / "outputs" / "again", outputs)
    return ""


def open_graph(
    graph: GraphFile, files: dict[str, Session], *, format_name: str, weight_bytes: int, threads: int
) -> Session:
    """Return the session of a graph; graphs that are branches of one file share its session.

    Args:
        graph: graph to load.
        files: sessions of the files that are open; a new one is added.
        format_name: name of the file's format.
        weight_bytes: see `open_session`.
        threads: number of threads.

    Raises:
        ValidationError: the file does not load, or has another interface.
    """
    path, branch = graph.path, graph.branch
    if path not in files:
        expected = Expected(Path(path), graph.inputs, graph.outputs)
        files[path] = open_session(format_name, expected, weight_bytes, threads)
    session = files[path]
    if branch is None:
        return session
    assert isinstance(session, OnnxSession), "no other format branches"
    return BranchSession(session, branch.inputs, branch.outputs)
