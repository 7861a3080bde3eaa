"""Measure wall time, processor time and peak memory of a command and all processes that it starts (Linux)."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Measurement", "measure"]

SAMPLE_INTERVAL_S = 0.02


@dataclass(frozen=True)
class Measurement:
    """One run of a command.

    Attributes:
        wall_s: seconds from start to end.
        processor_s: seconds of processor time, user and system, of the command and of the descendants that were waited for.
        peak_bytes: largest sum of the proportional set sizes of the command's live processes: shared pages count once,
            mapped files count where they are resident; 0 if not sampled.
        peak_anonymous_bytes: largest sum of their anonymous memory, which the kernel cannot drop; 0 if not sampled.
        exit_code: exit code of the command; negative for a signal.
    """

    wall_s: float
    processor_s: float
    peak_bytes: int
    peak_anonymous_bytes: int
    exit_code: int


def measure(
    command: Sequence[str],
    *,
    log: Path,
    env: dict[str, str] | None = None,
    memory: bool = True,
    timeout_s: float | None = None,
) -> Measurement:
    """Run `command` in a process group of its own and write its output to `log`.

    Args:
        command: program and arguments.
        log: file for the output.
        env: variables to add to this process's environment.
        memory: whether to sample memory. Sampling slows the processes down, so measure times without it.
        timeout_s: seconds after which the whole group is killed; `None` for no limit.
    """
    with log.open("wb") as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        peaks = [0, 0]
        done = threading.Event()
        sampler = threading.Thread(target=_sample, args=(process.pid, peaks, done), daemon=True)
        if memory:
            sampler.start()
        limit = threading.Timer(timeout_s, _kill, [process.pid]) if timeout_s is not None else None
        if limit is not None:
            limit.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            _kill(process.pid)
            raise
        finally:
            done.set()
            if limit is not None:
                limit.cancel()
        wall_s = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if memory:
            sampler.join()
    return Measurement(wall_s, usage.ru_utime + usage.ru_stime, peaks[0], peaks[1], process.returncode)


def _kill(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


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
