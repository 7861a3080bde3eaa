"""Run conversion in child processes, which damaged or malicious input may crash."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hfexport._internal import workers
from hfexport._internal.messages import Message, plain
from hfexport._internal.process import Limits
from hfexport.errors import CheckpointError

__all__ = ["run_child"]

MEMORY_BYTES = 2**32
MEMORY_SHARE = 3
"""Memory limit of a child: `MEMORY_BYTES` for torch and transformers, plus `MEMORY_SHARE` times the weights' size."""

CPU_S = 600
BYTES_PER_CPU_S = 10**6
"""Processor time limit of a child: `CPU_S`, plus one second per `BYTES_PER_CPU_S` bytes of weights."""


def run_child(
    module: str, job: Message, *, name: str, folder: Path, env: Mapping[str, str], size_bytes: int
) -> dict[str, Any]:
    """Run `module` on `job` to its end, with limits that depend on the size of the weights.

    See `hfexport._internal.workers.start`.

    Raises:
        CheckpointError: the child raised it, was killed, or exceeded its limit of time or memory.
        HfexportError: any other error that the child raised.
    """
    limits = Limits(MEMORY_BYTES + MEMORY_SHARE * size_bytes, CPU_S + size_bytes // BYTES_PER_CPU_S)
    options: dict[str, Any] = {"failure": CheckpointError, "kind": "transformers", "limits": limits}
    with workers.start(
        module, plain(job), name=name, folder=folder, env=workers.child_environment(env), **options
    ) as child:
        return child.result(workers.timeout_for(size_bytes))
