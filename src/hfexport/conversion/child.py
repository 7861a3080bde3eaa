"""The child processes of conversion: what they are given comes from outside, and may bring them down."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hfexport import workers
from hfexport.errors import CheckpointError

__all__ = ["run_child"]

TIMEOUT_S = 3600.0


def run_child(
    module: str, job: Mapping[str, Any], *, name: str, folder: Path, env: Mapping[str, str]
) -> dict[str, Any]:
    """Run `module` on `job` to its end; see `hfexport.workers.start` for the arguments.

    Raises:
        CheckpointError: the child raised it, was killed, or took longer than an hour.
        HfexportError: any other that the child raised.
    """
    environment = workers.child_environment(env)
    with workers.start(
        module, job, name=name, folder=folder, env=environment, failure=CheckpointError, kind="transformers"
    ) as child:
        return child.result(TIMEOUT_S)
