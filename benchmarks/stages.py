"""Where the time of an export goes: the stages of each process of a cold and of a warm run, and what waits for what."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from cases import Case, checkpoint
from comparison import TIMEOUT_S, quiet, reason
from peers import CONTENDERS, Places
from process_tree import measure

__all__ = ["CONTENDER_NAMES", "STAGED", "read_processes", "stages"]

STAGED: Final = ("minilm", "llama-125m", "llama-1.1b")
"""Cases whose stages are measured."""

CONTENDER_NAMES: Final = ("hfexport cold", "hfexport warm")
IMPORTS: Final = "import torch, transformers; from transformers import AutoModel; AutoModel"
TRACED: Final = Path(__file__).with_name("traced")


def stages(folder: Path, runs: int, cases: Sequence[Case]) -> dict[str, Any]:
    """Measure imports alone, then each case cold and warm: `runs` times as it is, and once with samples of its stages."""
    found: dict[str, Any] = {"imports_s": _imports(folder, runs), "cases": {}}
    for case in (case for case in cases if case.name in STAGED):
        place = folder / case.name
        place.mkdir()
        found["cases"][case.name] = {name: _measure(case, name, place, runs) for name in CONTENDER_NAMES}
        shutil.rmtree(place)
    return found


def _imports(folder: Path, runs: int) -> float:
    """Return the median wall time of an interpreter that only imports torch and transformers, in seconds."""
    command = [sys.executable, "-c", IMPORTS]
    results = [measure(command, log=folder / "imports.log", env=quiet(), memory=False) for _ in range(runs + 1)]
    return statistics.median(result.wall_s for result in results[1:])


def _measure(case: Case, name: str, folder: Path, runs: int) -> dict[str, Any]:
    """Return `wall_s` and `processor_s` of plain runs, and the `processes` of one with samples; or why it `failed`."""
    (contender,) = (one for one in CONTENDERS if one.name == name)
    places = Places(checkpoint(case.architecture, folder / "checkpoint"), folder / "out", folder / "cache")
    command, log, samples = (
        contender.command(case, places),
        folder / "run.log",
        Path(f"/dev/shm/hfexport-stages-{os.getpid()}"),
    )
    # Every process opens the file of the samples; hfexport's child processes can write to /dev/shm, but not to `folder`.
    traced = {**quiet(), "PYTHONPATH": str(TRACED), "TZ": f"stages:{samples}"}
    results = []
    for env in (quiet(), *[quiet()] * runs, traced):  # the first fills the page cache, and the cache of a warm run
        shutil.rmtree(places.output, ignore_errors=True)
        results.append(measure(command, log=log, env=env, memory=False, timeout_s=TIMEOUT_S))
        if results[-1].exit_code != 0:
            return {"failed": reason(log, results[-1].exit_code)}
    counted = results[1:-1]
    processes = read_processes(samples)
    samples.unlink()
    return {
        "wall_s": statistics.median(result.wall_s for result in counted),
        "processor_s": statistics.median(result.processor_s for result in counted),
        "processes": processes,
    }


def read_processes(samples: Path) -> list[dict[str, Any]]:
    """Return the processes of a run in the order of their start; times in seconds since the first started.

    Each has `role`, `start_s`, `end_s`, `processor_s`, and `stages`: name, seconds, and when it began and ended.
    """
    lines = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    lines.sort(key=lambda line: line["start"])
    zero = lines[0]["start"]
    return [
        {
            "role": line["role"],
            "start_s": line["start"] - zero,
            "end_s": line["end"] - zero,
            "processor_s": line["processor_s"],
            "stages": [
                {"name": name, "wall_s": seconds, "start_s": first - zero, "end_s": last - zero}
                for name, (seconds, first, last) in sorted(line["stages"].items(), key=lambda item: item[1][1])
            ],
        }
        for line in lines
    ]
