"""Relay progress of a child process: lines of JSON in a file, repeated to the parent's observer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Annotated, Final

import msgspec

from hfexport._internal.peak_memory import peak_memory_bytes
from hfexport._internal.workers import Worker
from hfexport.run.observer import Advance, Observer, StageOutcome

__all__ = ["Reporter", "relay"]

POLL_S: Final = 0.03
ADVANCE_INTERVAL_S: Final = 0.2
MAX_LINE_BYTES: Final = 2**20
MAX_DEPTH: Final = 20
"""Limit of nested stages: foreign code can write to the file too, and must not exhaust the parent."""

Whole = Annotated[int, msgspec.Meta(ge=0)]


class _StageBegins(msgspec.Struct, frozen=True, tag="stage"):
    text: str


class _ProgressBegins(msgspec.Struct, frozen=True, tag="progress"):
    text: str
    total: Whole
    unit: str


class _Advanced(msgspec.Struct, frozen=True, tag="advance"):
    amount: Whole


class _Note(msgspec.Struct, frozen=True, tag="note"):
    text: str


class _Warning(msgspec.Struct, frozen=True, tag="warn"):
    text: str


class _OutputBegins(msgspec.Struct, frozen=True, tag="output"):
    """Lines of another program follow, up to the next end."""


class _Line(msgspec.Struct, frozen=True, tag="line"):
    text: str


class _End(msgspec.Struct, frozen=True, tag="end"):
    """End of the current stage, progress or output.

    Attributes:
        failed: whether the stage raised an error.
        peak: peak memory of the child in bytes; `None` if the system does not report it.
    """

    failed: bool = False
    peak: Whole | None = None


Event = _StageBegins | _ProgressBegins | _Advanced | _Note | _Warning | _OutputBegins | _Line | _End


class Reporter:
    """An `Observer` that writes each call to a file, for `relay`."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._lock = Lock()

    @contextmanager
    def stage(self, name: str) -> Iterator[StageOutcome]:
        self._tell(_StageBegins(name))
        failed = True
        try:
            yield StageOutcome()
            failed = False
        finally:
            self._tell(_End(failed, peak_memory_bytes()))

    @contextmanager
    def progress(self, name: str, total: int, *, unit: str = "") -> Iterator[Advance]:
        self._tell(_ProgressBegins(name, total, unit))
        waiting, last = 0, time.monotonic()

        def advance(amount: int) -> None:
            nonlocal waiting, last
            waiting += amount
            if time.monotonic() - last >= ADVANCE_INTERVAL_S:
                self._tell(_Advanced(waiting))
                waiting, last = 0, time.monotonic()

        try:
            yield advance
        finally:
            self._tell(_Advanced(waiting))
            self._tell(_End())

    def note(self, text: str) -> None:
        self._tell(_Note(text))

    def warn(self, text: str) -> None:
        self._tell(_Warning(text))

    def mask(self, secret: str) -> None:
        """Ignore secrets: only the parent has any."""

    def masked(self, text: str) -> str:
        return text

    def child_output(self, lines: Iterable[str]) -> None:
        self._tell(_OutputBegins())
        try:
            for line in lines:
                self._tell(_Line(line))
        finally:
            self._tell(_End())

    def _tell(self, event: Event) -> None:
        with self._lock:
            self._file.write(json.dumps(msgspec.to_builtins(event)) + "\n")
            self._file.flush()


def relay(worker: Worker, path: Path, observer: Observer) -> None:
    """Repeat the calls of the child's `Reporter` to `observer` until the child ends."""
    _repeat(_events(worker, path), observer, None, 0)


class _StageFailed(Exception):
    """A stage of the child failed; the child's answer has the error."""


def _events(worker: Worker, path: Path) -> Iterator[Event]:
    """Yield the child's events as they arrive; lines that are none are skipped."""
    path.touch()
    with path.open("rb") as file:
        while True:
            last_look = not worker.running
            while line := file.readline(MAX_LINE_BYTES):
                if not line.endswith(b"\n") and not last_look and len(line) < MAX_LINE_BYTES:
                    file.seek(-len(line), 1)
                    break
                with suppress(ValueError, RecursionError):
                    # Not `msgspec.json`, which rejects names of files that are not UTF-8.
                    event: Event = msgspec.convert(json.loads(line), Event)
                    yield event
            if last_look:
                return
            worker.pause(POLL_S)


def _repeat(events: Iterator[Event], observer: Observer, advance: Callable[[int], None] | None, depth: int) -> _End:
    """Repeat events up to the end of the current stage or progress.

    Returns:
        The event that ended it.
    """
    for event in events:
        match event:
            case _End() if depth:
                return event
            case _Note(text):
                observer.note(text)
            case _Warning(text):
                observer.warn(text)
            case _Advanced(amount) if advance is not None:
                advance(amount)
            case _OutputBegins():
                observer.child_output(_lines(events))
            case _StageBegins(name) if depth < MAX_DEPTH:
                _repeat_stage(events, observer, name, depth)
            case _ProgressBegins(name, total, unit) if depth < MAX_DEPTH:
                with observer.progress(name, total, unit=unit) as own:
                    _repeat(events, observer, own, depth + 1)
    return _End(failed=True)


def _repeat_stage(events: Iterator[Event], observer: Observer, name: str, depth: int) -> None:
    with suppress(_StageFailed), observer.stage(name) as outcome:
        end = _repeat(events, observer, None, depth + 1)
        if outcome is not None:
            outcome.peak_memory_bytes = end.peak or None
        if end.failed:
            raise _StageFailed


def _lines(events: Iterator[Event]) -> Iterator[str]:
    for event in events:
        if isinstance(event, _End):
            return
        if isinstance(event, _Line):
            yield event.text
