"""CPU latency of the ONNX artifacts of all-MiniLM-L6-v2, hfexport's and the reference's in turn."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from cases import CASES, checkpoint
from comparison import quiet, reason
from peers import CONTENDERS, REFERENCE, Places
from process_tree import measure

__all__ = ["SHAPES", "THREADS", "latency"]

SHAPES: Final = ((1, 32), (1, 128), (8, 32), (8, 128))
THREADS: Final = 2
WORKER: Final = Path(__file__).with_name("latency_worker.py")


def latency(folder: Path, runs: int) -> dict[str, Any]:
    """Return the median latencies in ms of each run, by contender and then by shape; or a reason under `failed`."""
    case = next(case for case in CASES if case.name == "minilm")
    artifacts: dict[str, Path] = {}
    for contender in CONTENDERS:
        if contender.name not in ("hfexport cold", REFERENCE):
            continue
        if (missing := contender.missing()) is not None:
            return {"failed": f"{contender.name}: {missing}"}
        places = Places(checkpoint(case.architecture, folder), folder / f"latency-{len(artifacts)}", folder / "cache")
        log = places.output.with_suffix(".log")
        result = measure(contender.command(case, places), log=log, env=quiet(), memory=False)
        if result.exit_code != 0:
            return {"failed": f"{contender.name}: {reason(log, result.exit_code)}"}
        artifacts[contender.name] = next(places.output.rglob("model.onnx"))
    found: dict[str, list[list[float]]] = {name: [] for name in artifacts}
    for run in range(runs + 1):
        for name, path in artifacts.items():
            medians = _measure(path)
            if run > 0:
                found[name].append(medians)
        time.sleep(0.5)
    return {"milliseconds": found}


def _measure(path: Path) -> list[float]:
    command = [sys.executable, str(WORKER), str(path), json.dumps(SHAPES), "3", str(THREADS)]
    return list(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
