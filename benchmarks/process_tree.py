"""Measure wall time and peak memory of a command and all processes that it starts (Linux)."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Measurement", "measure"]

SAMPLE_INTERVAL_S = 0.02


@dataclass(frozen=True)
class Measurement:
    """One run of a command.

    Attributes:
        wall_s: seconds from start to end.
        peak_bytes: largest sum of the proportional set sizes of the command's live processes: shared pages count once,
            mapped files count where they are resident; 0 if not sampled.
        peak_anonymous_bytes: largest sum of their anonymous memory, which the kernel cannot drop; 0 if not sampled.
        exit_code: exit code of the command.
    """

    wall_s: float
    peak_bytes: int
    peak_anonymous_bytes: int
    exit_code: int


def measure(
    command: Sequence[str], *, log: Path, env: dict[str, str] | None = None, memory: bool = True
) -> Measurement:
    """Run `command` and write its output to `log`.

    Args:
        command: program and arguments.
        log: file for the output.
        env: variables to add to this process's environment.
        memory: whether to sample memory. Sampling slows the processes down, so measure times without it.
    """
    with log.open("wb") as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})})
        peaks = [0, 0]
        done = threading.Event()
        sampler = threading.Thread(target=_sample, args=(process.pid, peaks, done), daemon=True)
        if memory:
            sampler.start()
        exit_code = process.wait()
        wall_s = time.perf_counter() - start
        done.set()
        if memory:
            sampler.join()
    return Measurement(wall_s, peaks[0], peaks[1], exit_code)


def _sample(root: int, peaks: list[int], done: threading.Event) -> None:
    while not done.wait(SAMPLE_INTERVAL_S):
        totals = [0, 0]
        for pid in _tree(root):
            for index, value in enumerate(_memory(pid)):
                totals[index] += value
        peaks[:] = [max(old, new) for old, new in zip(peaks, totals, strict=True)]


def _tree(root: int) -> list[int]:
    """Return `root` and its descendants; processes that end meanwhile are left out."""
    found, queue = [], [root]
    while queue:
        pid = queue.pop()
        found.append(pid)
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                queue.extend(int(child) for child in children.read_text().split())
            except OSError:
                continue
    return found


def _memory(pid: int) -> tuple[int, int]:
    """Return the proportional set size and anonymous memory of a process, in bytes."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0, 0
    fields = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in text.splitlines()[1:]}
    return fields.get("Pss", 0), fields.get("Pss_Anon", fields.get("Anonymous", 0))
