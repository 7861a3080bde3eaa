"""Progress of a child process: the parent's observer gets the calls that the child's observer got."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hfexport.run.observer import Advance, StageOutcome
from hfexport.run.relay import MAX_DEPTH, Reporter, relay

ENDED: Any = SimpleNamespace(running=False)


class Seen:
    """An `Observer` that lists the calls that it gets."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[StageOutcome]:
        self.calls.append(("stage", name))
        outcome, failed = StageOutcome(), True
        try:
            yield outcome
            failed = False
        finally:
            self.calls.append(("stage ends", name, failed, (outcome.peak_memory_bytes or 0) > 0))

    @contextmanager
    def progress(self, name: str, total: int, *, unit: str = "") -> Iterator[Advance]:
        done = [0]

        def advance(amount: int) -> None:
            done[0] += amount

        yield advance
        self.calls.append(("progress", name, total, unit, done[0]))

    def note(self, text: str) -> None:
        self.calls.append(("note", text))

    def warn(self, text: str) -> None:
        self.calls.append(("warn", text))

    def mask(self, secret: str) -> None:
        self.calls.append(("mask", secret))

    def masked(self, text: str) -> str:
        return text

    def child_output(self, lines: Iterable[str]) -> None:
        self.calls.append(("output", *lines))


def test_every_call_is_repeated(tmp_path: Path) -> None:
    reporter = Reporter(tmp_path / "events")
    with reporter.stage("Export"):
        reporter.note("caf\udce9.json is copied")  # a name that is not UTF-8
        with reporter.progress("Weights", 30, unit="B") as advance:
            advance(10)
            advance(20)
        with pytest.raises(OSError, match="full"), reporter.stage("Files"):
            reporter.warn("little room")
            raise OSError("full")
        reporter.child_output(["one", "two"])
    seen = Seen()
    relay(ENDED, tmp_path / "events", seen)
    assert seen.calls == [
        ("stage", "Export"),
        ("note", "caf\udce9.json is copied"),
        ("progress", "Weights", 30, "B", 30),
        ("stage", "Files"),
        ("warn", "little room"),
        ("stage ends", "Files", True, True),
        ("output", "one", "two"),
        ("stage ends", "Export", False, True),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"type": "note"}',
        '{"type": "note", "text": 3}',
        '{"type": "run", "text": "rm"}',
        '{"type": "progress", "text": "Weights", "total": -1, "unit": "B"}',
        '{"type": "advance", "amount": "many"}',
        "[" * 100_000,
        "\x00",
    ],
)
def test_a_line_that_is_no_event_is_skipped(line: str, tmp_path: Path) -> None:
    path = tmp_path / "events"
    Reporter(path).note("first")
    with path.open("a") as file:
        file.write(line + "\n")
    Reporter(path).note("last")
    seen = Seen()
    relay(ENDED, path, seen)
    assert seen.calls == [("note", "first"), ("note", "last")]


def test_stages_that_never_end_are_limited(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_text("".join(json.dumps({"type": "stage", "text": str(number)}) + "\n" for number in range(1000)))
    seen = Seen()
    relay(ENDED, path, seen)
    assert sum(call[0] == "stage" for call in seen.calls) == MAX_DEPTH
    assert all(call[2] for call in seen.calls if call[0] == "stage ends")
