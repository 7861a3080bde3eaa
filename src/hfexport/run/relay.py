"""Relay progress of a child process: lines of JSON in a file, repeated to the parent's observer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any, Final

from hfexport._internal.peak_memory import peak_memory_bytes
from hfexport._internal.workers import Worker
from hfexport.run.observer import Advance, Observer, StageOutcome

__all__ = ["Reporter", "relay"]

POLL_S: Final = 0.03
ADVANCE_INTERVAL_S: Final = 0.2
MAX_LINE_BYTES: Final = 2**20
MAX_DEPTH: Final = 20
"""Limit of nested stages: foreign code can write to the file too, and must not exhaust the parent."""

Event = dict[str, Any]


class Reporter:
    """An `Observer` that writes each call to a file, for `relay`."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._lock = Lock()

    @contextmanager
    def stage(self, name: str) -> Iterator[StageOutcome]:
        self._tell("stage", text=name)
        failed = True
        try:
            yield StageOutcome()
            failed = False
        finally:
            self._tell("end", failed=failed, peak=peak_memory_bytes())

    @contextmanager
    def progress(self, name: str, total: int, *, unit: str = "") -> Iterator[Advance]:
        self._tell("progress", text=name, total=total, unit=unit)
        waiting, last = 0, time.monotonic()

        def advance(amount: int) -> None:
            nonlocal waiting, last
            waiting += amount
            if time.monotonic() - last >= ADVANCE_INTERVAL_S:
                self._tell("advance", amount=waiting)
                waiting, last = 0, time.monotonic()

        try:
            yield advance
        finally:
            self._tell("advance", amount=waiting)
            self._tell("end", failed=False)

    def note(self, text: str) -> None:
        self._tell("note", text=text)

    def warn(self, text: str) -> None:
        self._tell("warn", text=text)

    def mask(self, secret: str) -> None:
        """Ignore secrets: only the parent has any."""

    def masked(self, text: str) -> str:
        return text

    def child_output(self, lines: Iterable[str]) -> None:
        self._tell("output")
        try:
            for line in lines:
                self._tell("line", text=line)
        finally:
            self._tell("end", failed=False)

    def _tell(self, kind: str, **values: object) -> None:
        with self._lock:
            self._file.write(json.dumps({"kind": kind, **values}) + "\n")
            self._file.flush()


def relay(worker: Worker, path: Path, observer: Observer) -> None:
    """Repeat the calls of the child's `Reporter` to `observer` until the child ends."""
    _repeat(_events(worker, path), observer, None, 0)


class _StageFailed(Exception):
    """A stage of the child failed; the child's answer has the error."""


def _events(worker: Worker, path: Path) -> Iterator[Event]:
    """Yield the child's events as they arrive."""
    path.touch()
    with path.open("rb") as file:
        while True:
            last_look = not worker.running
            while line := file.readline(MAX_LINE_BYTES):
                if not line.endswith(b"\n") and not last_look and len(line) < MAX_LINE_BYTES:
                    file.seek(-len(line), 1)
                    break
                with suppress(ValueError, RecursionError):
                    event = json.loads(line)
                    if isinstance(event, dict):
                        yield event
            if last_look:
                return
            worker.pause(POLL_S)


def _repeat(events: Iterator[Event], observer: Observer, advance: Callable[[int], None] | None, depth: int) -> Event:
    """Repeat events up to the end of the current stage or progress.

    Returns:
        The event that ended it.
    """
    for event in events:
        kind, text = event.get("kind"), str(event.get("text", ""))
        if kind == "end":
            if depth:
                return event
        elif kind == "note":
            observer.note(text)
        elif kind == "warn":
            observer.warn(text)
        elif kind == "advance" and advance is not None:
            advance(_whole(event.get("amount")))
        elif kind == "output":
            observer.child_output(_lines(events))
        elif kind == "stage" and depth < MAX_DEPTH:
            _repeat_stage(events, observer, text, depth)
        elif kind == "progress" and depth < MAX_DEPTH:
            with observer.progress(text, _whole(event.get("total")), unit=str(event.get("unit", ""))) as own:
                _repeat(events, observer, own, depth + 1)
    return {"failed": True}


def _repeat_stage(events: Iterator[Event], observer: Observer, name: str, depth: int) -> None:
    with suppress(_StageFailed), observer.stage(name) as outcome:
        end = _repeat(events, observer, None, depth + 1)
        if outcome is not None:
            outcome.peak_memory_bytes = _whole(end.get("peak")) or None
        if end.get("failed"):
            raise _StageFailed


def _lines(events: Iterator[Event]) -> Iterator[str]:
    for event in events:
        if event.get("kind") == "end":
            return
        yield str(event.get("text", ""))


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
