"""Run the models of a plan in processes: as many at once as jobs and memory allow, with retries after outside faults."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from hfexport.errors import InputsError
from hfexport.manifest.model import Manifest
from hfexport.run.fleet.current import read_manifest
from hfexport.run.fleet.plan import Planned
from hfexport.run.output_folder import output_lock, sweep
from hfexport.run.preflight import peak_bytes

__all__ = ["WORST_FIRST", "Outcome", "Settings", "remove_remains", "run_all", "worst"]

WORST_FIRST: Final = (1, 6, 5, 9, 8, 4, 3, 2, 7, 0)
"""Exit codes from the worst to the best; docs/exit-codes.md gives the reasons."""

KILLED: Final = 5
"""Exit code of a model whose process was killed from outside, such as for memory."""

WAITS_S: Final = (5.0, 30.0, 120.0)
"""Pause before each retry of a model; the last one counts for all further ones."""

LOCK_WAIT_S: Final = 10.0
"""Time that the processes of a killed fleet may take to end and to leave their output folders."""

POLL_S: Final = 0.5


@dataclass(frozen=True)
class Settings:
    """How to run a fleet.

    Attributes:
        jobs: largest number of models at the same time.
        retries: number of further attempts after a failure of the network or the machine.
        memory_bytes: memory for all of them together; `None` if unknown.
        env: complete environment of each process.
        command: returns the command line of one model's process.
        waits_s: see `WAITS_S`.
    """

    jobs: int
    retries: int
    memory_bytes: int | None
    env: Mapping[str, str]
    command: Callable[[Planned], Sequence[str]]
    waits_s: Sequence[float] = WAITS_S


@dataclass(frozen=True)
class Outcome:
    """Result of one model.

    Attributes:
        planned: the model.
        exit_code: exit code of its last attempt.
        attempts: number of attempts.
        seconds: duration of the last attempt.
        manifest: manifest in its output folder; `None` if there is none.
        log: file with the output of its process.
        failed_by: `network` or `machine` if the last attempt failed by it; else empty.
        final: whether no further attempt follows.
    """

    planned: Planned
    exit_code: int
    attempts: int
    seconds: float
    manifest: Manifest | None
    log: Path
    failed_by: str
    final: bool


@dataclass(frozen=True)
class _Waiting:
    """A model that has to be run, not before `not_before` (monotonic seconds), and alone if `alone`."""

    planned: Planned
    attempts: int = 0
    not_before: float = 0.0
    alone: bool = False
    give_up_lock: float | None = None

    @property
    def need_bytes(self) -> int:
        return peak_bytes(self.planned.found.weights_bytes)


@dataclass
class _Running:
    waiting: _Waiting
    process: subprocess.Popen[bytes]
    started: float
    log: Path
    ended: int = field(init=False)

    def __post_init__(self) -> None:
        self.ended = os.pidfd_open(self.process.pid)


def worst(codes: Sequence[int]) -> int:
    """Return the worst exit code; 0 if there is none."""
    return min(codes, key=lambda code: WORST_FIRST.index(code) if code in WORST_FIRST else -1, default=0)


def run_all(todo: Sequence[Planned], settings: Settings, told: Callable[[Outcome], None]) -> list[Outcome]:
    """Run every model, and return the last outcome of each in the order of `todo`.

    A model that does not fit into the memory beside the others waits, and one that does not fit at all runs alone. One
    that failed because the machine lacked memory or disk is tried again alone.

    Args:
        todo: models in the order in which they should start.
        settings: how to run them.
        told: called with the outcome of each attempt.
    """
    waiting = [_Waiting(one) for one in todo]
    running: list[_Running] = []
    outcomes: dict[int, Outcome] = {}
    try:
        while waiting or running:
            while (index := _next(waiting, running, settings)) is not None:
                _start(index, waiting, running, settings)
            for ended in _ended(running):
                running.remove(ended)
                outcome = _outcome(ended, settings)
                if outcome.final:
                    outcomes[id(ended.waiting.planned)] = outcome
                else:
                    waiting.append(_again(ended.waiting, outcome, settings))
                told(outcome)
    finally:
        _stop(running)
    return [outcomes[id(one)] for one in todo]


def remove_remains(current: Sequence[Planned]) -> None:
    """Remove what a killed run left in the output folders of models whose export is complete."""
    for one in current:
        output = Path(one.member.inputs.output)
        if output.is_dir():
            with suppress(InputsError), output_lock(output):  # another run works in it
                sweep(output)


def _next(waiting: Sequence[_Waiting], running: Sequence[_Running], settings: Settings) -> int | None:
    """Return the index of the first model that may start now."""
    if len(running) >= settings.jobs or any(one.waiting.alone for one in running):
        return None
    used = sum(one.waiting.need_bytes for one in running)
    now = time.monotonic()
    for index, one in enumerate(waiting):
        if one.not_before > now or (one.alone and running):
            continue
        if not running or settings.memory_bytes is None or used + one.need_bytes <= settings.memory_bytes:
            return index
    return None


def _start(index: int, waiting: list[_Waiting], running: list[_Running], settings: Settings) -> None:
    one = waiting.pop(index)
    output = Path(one.planned.member.inputs.output)
    now = time.monotonic()
    if _is_locked(output) and (one.give_up_lock is None or now < one.give_up_lock):
        give_up = now + LOCK_WAIT_S if one.give_up_lock is None else one.give_up_lock
        waiting.insert(index, replace(one, not_before=now + POLL_S, give_up_lock=give_up))
        return
    log = output.parent / f"{output.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab" if one.attempts else "wb") as stream:
        process = subprocess.Popen(
            list(settings.command(one.planned)),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=dict(settings.env),
            start_new_session=True,
        )
    running.append(_Running(replace(one, attempts=one.attempts + 1), process, now, log))


def _is_locked(output: Path) -> bool:
    """Return whether a run holds the output folder's lock."""
    try:
        descriptor = os.open(output, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _ended(running: Sequence[_Running]) -> list[_Running]:
    """Wait until a process ends or a pause may be over; return the ended ones."""
    if not running:
        time.sleep(POLL_S)
        return []
    ready, _, _ = select.select([one.ended for one in running], [], [], POLL_S)
    return [one for one in running if one.ended in ready]


def _outcome(ended: _Running, settings: Settings) -> Outcome:
    code = ended.process.wait()
    os.close(ended.ended)
    one = ended.waiting
    manifest = read_manifest(Path(one.planned.member.inputs.output))
    error = None if manifest is None else manifest.get("error")
    written = isinstance(error, Mapping) and error.get("exit_code") == code  # not by an earlier run
    failed_by = str(error.get("failed_by", "")) if code and written and error is not None else ""
    if code < 0:
        code, failed_by = KILLED, "machine"
    final = not failed_by or one.attempts > settings.retries
    seconds = time.monotonic() - ended.started
    return Outcome(one.planned, code, one.attempts, seconds, manifest, ended.log, failed_by, final)


def _again(one: _Waiting, outcome: Outcome, settings: Settings) -> _Waiting:
    pause_s = settings.waits_s[min(one.attempts, len(settings.waits_s)) - 1] if settings.waits_s else 0.0
    return replace(one, not_before=time.monotonic() + pause_s, alone=outcome.failed_by == "machine", give_up_lock=None)


def _stop(running: Sequence[_Running]) -> None:
    """End processes that still run: first as an interrupt does, so that they clean up, then by force."""
    for one in running:
        with suppress(ProcessLookupError):
            os.killpg(one.process.pid, signal.SIGTERM)
    end = time.monotonic() + LOCK_WAIT_S
    for one in running:
        try:
            one.process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(one.process.pid, signal.SIGKILL)
            one.process.wait()
        os.close(one.ended)
