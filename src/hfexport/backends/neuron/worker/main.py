"""Entry point of the worker: do one job, write one answer, and exit if the parent process dies.

Run isolated, as `python -I -B -u -c BOOTSTRAP ROOT FOLDER`; see `hfexport.backends.neuron.protocol`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

from . import PROTOCOL, Failure
from .environment import probe
from .exporting import export
from .network import leave_network
from .running import generate, run


def main() -> None:
    """Do the job in the folder given on the command line, and write `result.json` atomically."""
    folder = Path(sys.argv[-1]).resolve()
    network = leave_network()
    _end_with_parent()
    os.chdir(str(folder))
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    try:
        answer = {"status": "ok", **_do(json.loads((folder / "job.json").read_text(encoding="utf-8")), folder)}
    except Failure as failure:
        answer = {"status": "error", "code": failure.code, "message": str(failure)[:4000]}
    answer["protocol"], answer["network"] = PROTOCOL, network
    staged = folder / "result.json.part"
    staged.write_text(json.dumps(answer), encoding="utf-8")
    os.replace(str(staged), str(folder / "result.json"))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # all results are written; shutting down the SDK's runtime could hang


def _do(job: Any, folder: Path) -> dict[str, Any]:
    if not isinstance(job, dict) or job.get("protocol") != PROTOCOL or job.get("action") not in ACTIONS:
        raise Failure("bad_job", "this worker uses protocol {}, and the job another one".format(PROTOCOL))
    return ACTIONS[job["action"]](job, folder)


def _end_with_parent() -> None:
    """Fork a watcher that kills the whole process group when the parent process ends in any way.

    Standard input is a pipe whose other end only the parent holds. The compiler is a separate process, which a parent
    death signal of this one would not reach.
    """
    if os.fork() == 0:
        with contextlib.suppress(OSError):
            while os.read(0, 1024):
                pass
        os.killpg(0, signal.SIGKILL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)


ACTIONS = {"probe": probe, "export": export, "run": run, "generate": generate}
