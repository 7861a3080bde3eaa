"""Run one artifact as a user would, in a new process that did not make it, and write its outputs.

Runs as a child process (see `hfexport._internal.workers`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hfexport.validation.arrays import read_arrays, write_arrays
from hfexport.validation.generation import decode
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

__all__ = ["run"]


def run(job: Mapping[str, Any]) -> dict[str, Any]:
    """Run the artifact on every probe, one at a time.

    Args:
        job: `format`, `weight_bytes`, `threads`; `graphs`, the last of which is run on the probes while the others take
            part in generation, each with `graph` (name), `path`, the expected `inputs` as (name, dtype) and `outputs`
            as names, and `branch`, the `inputs` and `outputs` of the branch to run if the file has several, else null;
            `greedy_steps` and `reorders`, one per probe; `start_token` of a decoder; `hash_weights`, whether to write
            the hashes of the tensors in the last graph's file; `reference`, a folder with `inputs/{n}` and
            `outputs/{n}`; `folder`, in which `outputs/{n}` is written.

    Returns:
        `session`: kind of session; `refusals`: by probe number, the runtime's error for probes that it rejected;
            `refused_again`: the same for the first probe, which is run again at the end, into `outputs/again`.

    Raises:
        ValidationError: the artifact does not load, or has another interface.
    """
    files: dict[str, Session] = {}
    sessions = {graph["graph"]: _open(graph, job, files) for graph in job["graphs"]}
    if job["hash_weights"] and job["format"] == "onnx":
        # After ONNX Runtime has loaded the file: a damaged one is refused by then.
        write_hashes(hash_onnx(Path(job["graphs"][-1]["path"])), Path(job["folder"]))
    session = sessions[job["graphs"][-1]["graph"]]
    if job["hash_weights"] and isinstance(session, TorchScriptSession):
        write_hashes(hash_torchscript(session.module), Path(job["folder"]))
    reference = Path(job["reference"])
    refusals: dict[str, str] = {}
    for number, (steps, reorders) in enumerate(zip(job["greedy_steps"], job["reorders"], strict=True)):
        inputs = read_arrays(reference / "inputs" / str(number))
        try:
            if steps:
                tokens = np.asarray(read_arrays(reference / "outputs" / str(number))["tokens"])
                outputs = decode(sessions, inputs, tokens, int(job["start_token"]), reorders=reorders)
            else:
                outputs = session.ask(inputs)
        except Refusal as refusal:
            refusals[str(number)] = str(refusal)
            continue
        write_arrays(Path(job["folder"]) / "outputs" / str(number), outputs)
    return {"session": session.kind, "refusals": refusals, "refused_again": _ask_first_again(session, job, refusals)}


def _ask_first_again(session: Session, job: Mapping[str, Any], refusals: Mapping[str, str]) -> str:
    """Run the first probe again after all others; return the runtime's error if it fails now.

    TorchScript specialises a graph by earlier inputs, and an artifact may keep a state.
    """
    if not job["greedy_steps"] or job["greedy_steps"][0] or "0" in refusals:
        return ""
    try:
        outputs = session.ask(read_arrays(Path(job["reference"]) / "inputs" / "0"))
    except Refusal as refusal:
        return str(refusal)
    write_arrays(Path(job["folder"]) / "outputs" / "again", outputs)
    return ""


def _open(graph: Mapping[str, Any], job: Mapping[str, Any], files: dict[str, Session]) -> Session:
    """Return the session of a graph; graphs that are branches of one file share its session."""
    path, branch = graph["path"], graph["branch"]
    if path not in files:
        expected = Expected(Path(path), [(name, dtype) for name, dtype in graph["inputs"]], graph["outputs"])
        files[path] = open_session(job["format"], expected, int(job["weight_bytes"]), int(job["threads"]))
    session = files[path]
    if branch is None:
        return session
    assert isinstance(session, OnnxSession), "no other format branches"
    return BranchSession(session, branch["inputs"], branch["outputs"])
