"""Time the calls of one artifact, in a new process: ONNX Runtime without torch, or torch without transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hfexport._internal.messages import read
from hfexport.validation.arrays import read_arrays
from hfexport.validation.runner import open_graph
from hfexport.validation.sessions import Refusal, Session
from hfexport.validation.speed.clock import time_calls
from hfexport.validation.speed.protocol import ArtifactJob, TimedCall

__all__ = ["run"]


def run(values: Mapping[str, Any]) -> dict[str, Any]:
    """Time every call.

    Args:
        values: those of an `ArtifactJob`.

    Raises:
        ValidationError: a file does not load, or has another interface.
    """
    job = read(values, ArtifactJob)
    files: dict[str, Session] = {}
    # Sessions of 0 bytes have the runtime's defaults, as in production, and not those for large weights.
    sessions = {
        graph.graph: open_graph(graph, files, format_name=job.format, weight_bytes=0, threads=job.threads)
        for graph in job.graphs
    }
    dtypes = {graph.graph: dict(graph.inputs) for graph in job.graphs}

    def prepare(call: TimedCall) -> Callable[[], object]:
        given = read_arrays(Path(job.inputs) / str(call.number))
        arrays = {name: np.array(array, dtypes[call.graph].get(name), order="C") for name, array in given.items()}
        return sessions[call.graph].prepared(arrays)

    calls = [(call.number, lambda call=call: prepare(call)) for call in job.calls]
    time_calls(calls, Path(job.folder), job.budget_s, (Refusal,))
    return {}
