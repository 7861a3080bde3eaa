"""Time calls in the process of one contender, and write each result to a file as soon as it is there."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec

from hfexport.errors import first_line

__all__ = ["MAX_CALLS", "TIMES_FILE", "Timed", "read_times", "time_calls"]

TIMES_FILE: Final = "times.jsonl"

WARM_UP_CALLS: Final = 3
"""Calls before the clock starts: TorchScript optimises a graph in its first calls."""

MIN_CALLS: Final = 3
MAX_CALLS: Final = 20
CALLS_S: Final = 1.0
"""Seconds after which no further call of the same size is timed."""

OUT_OF_TIME: Final = "no time was left for it"

MAX_FILE_BYTES: Final = 2**22


class Timed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Times of one call in one process.

    Attributes:
        call: number of the call.
        ms: milliseconds of each repetition; empty if the call was not timed.
        reason: why it was not; empty if it was.
    """

    call: int
    ms: tuple[float, ...] = ()
    reason: str = ""


def time_calls(
    calls: Iterable[tuple[int, Callable[[], Callable[[], object]]]],
    folder: Path,
    budget_s: float,
    failures: tuple[type[Exception], ...],
) -> None:
    """Time calls one after another, and append a `Timed` for each to `TIMES_FILE` in `folder`.

    Args:
        calls: number of each call, and a function that reads its inputs and returns the function to time.
        folder: folder of the file.
        budget_s: seconds after which no further call is started.
        failures: exceptions with which a runtime rejects a call.
    """
    start = time.monotonic()
    with (folder / TIMES_FILE).open("wb") as file:
        for number, prepare in calls:
            if time.monotonic() - start > budget_s:
                timed = Timed(call=number, reason=OUT_OF_TIME)
            else:
                try:
                    timed = Timed(call=number, ms=_repeat(prepare()))
                except failures as error:
                    timed = Timed(call=number, reason=first_line(error))
            file.write(msgspec.json.encode(timed) + b"\n")
            file.flush()


def _repeat(call: Callable[[], object]) -> tuple[float, ...]:
    """Return the milliseconds of several calls after a warm-up, without garbage collection."""
    start = time.perf_counter()
    for _ in range(WARM_UP_CALLS):
        call()
        if time.perf_counter() - start > CALLS_S:
            break
    gc.collect()
    gc.disable()
    try:
        times: list[float] = []
        start = time.perf_counter()
        while len(times) < MAX_CALLS and (len(times) < MIN_CALLS or time.perf_counter() - start < CALLS_S):
            before = time.perf_counter()
            call()
            times.append((time.perf_counter() - before) * 1000)
    finally:
        gc.enable()
    return tuple(times)


def read_times(folder: Path) -> list[Timed]:
    """Read the times that a process wrote before it ended, in any way; lines that are not whole are left out."""
    try:
        with (folder / TIMES_FILE).open("rb") as file:
            lines = file.read(MAX_FILE_BYTES).splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            timed = msgspec.json.decode(line, type=Timed)
        except msgspec.DecodeError:
            continue
        if all(0 <= value < 1e9 for value in timed.ms):
            found.append(timed)
    return found
