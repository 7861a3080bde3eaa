"""Run every contender on one case in turn, and collect what each run took."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypedDict

from cases import Case, checkpoint, with_pickled_weights
from peers import Contender, Places
from process_tree import Measurement, measure

__all__ = ["Entry", "compare", "quiet", "reason"]

TIMEOUT_S: Final = 900.0
_ERROR: Final = re.compile(r"[\w.]*(Error|Exception|error)\b")


class Entry(TypedDict, total=False):
    """Results of one contender in one case.

    Attributes:
        call: number of the call of `bench.py` that measured it. Only figures of one call are compared.
        wall_s: wall time of each counted run, in order; runs of one index took turns.
        processor_s: processor time of each.
        peak_bytes: peak memory of the process tree, in the run that was not counted.
        peak_anonymous_bytes: of it anonymous.
        size_bytes: size of the folder that it wrote.
        failed: why there are no figures.
    """

    call: int
    wall_s: list[float]
    processor_s: list[float]
    peak_bytes: int
    peak_anonymous_bytes: int
    size_bytes: int
    failed: str


def compare(case: Case, contenders: Sequence[Contender], *, runs: int, call: int, folder: Path) -> dict[str, Entry]:
    """Measure `contenders` on `case`: one run with memory sampled, which is not counted, then `runs` in turn.

    A contender that is not installed or fails is in the result with its reason, and takes no further turn.
    """
    source = checkpoint(case.architecture, folder / "checkpoint")
    entries: dict[str, Entry] = {}
    running: list[tuple[Contender, Places]] = []
    for contender in contenders:
        name = contender.name.replace(" ", "-")
        weights = with_pickled_weights(source, folder / "pickled") if contender.pickled else source
        places = Places(weights, folder / f"{name}-out", folder / f"{name}-cache")
        entry: Entry = {"call": call}
        entries[contender.name] = entry
        missing = contender.missing()
        if missing is not None:
            entry["failed"] = missing
        elif _first(contender, case, places, entry):
            entry |= {"wall_s": [], "processor_s": []}
            running.append((contender, places))
    for _ in range(runs):
        for contender, places in tuple(running):
            entry = entries[contender.name]
            result = _run(contender, case, places, memory=False)
            if result.exit_code == 0:
                entry["wall_s"].append(result.wall_s)
                entry["processor_s"].append(result.processor_s)
            else:
                entry["failed"] = reason(_log(places), result.exit_code)
                running.remove((contender, places))
        time.sleep(0.5)
    return entries


def _first(contender: Contender, case: Case, places: Places, entry: Entry) -> bool:
    """Fill the contender's cache, if it has one, and run once with memory sampled; say whether that succeeded."""
    if contender.primed:
        shutil.rmtree(places.cache, ignore_errors=True)
        _run(contender, case, places, memory=False)
    result = _run(contender, case, places, memory=True)
    if result.exit_code != 0:
        entry["failed"] = reason(_log(places), result.exit_code)
        return False
    entry["peak_bytes"] = result.peak_bytes
    entry["peak_anonymous_bytes"] = result.peak_anonymous_bytes
    entry["size_bytes"] = sum(path.stat().st_size for path in places.output.rglob("*") if path.is_file())
    return True


def _run(contender: Contender, case: Case, places: Places, *, memory: bool) -> Measurement:
    shutil.rmtree(places.output, ignore_errors=True)
    command = contender.command(case, places)
    return measure(command, log=_log(places), env=quiet(), memory=memory, timeout_s=TIMEOUT_S)


def _log(places: Places) -> Path:
    return places.output.with_suffix(".log")


def reason(log: Path, exit_code: int) -> str:
    """Say why a command failed: its last error, or else its last line, or that it took too long."""
    if exit_code == -9:
        return f"killed: it took longer than {TIMEOUT_S:.0f} s or more memory than there is"
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR.match(line)]
    text = (errors or lines or ["it printed nothing"])[-1]
    return f"exit code {exit_code}: {text[:300]}"


def quiet() -> dict[str, str]:
    """Return the environment of all contenders: no network, no warnings, no workflow commands."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore", "GITHUB_ACTIONS": ""}
