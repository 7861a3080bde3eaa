"""Start child processes before their jobs are known, so that they import their modules meanwhile.

A standby is a new interpreter, or a fork of the starting process, in a session of its own. A new interpreter imports the
modules that its job will need. Both wait for the path of a job file on a pipe, and end when that closes, which happens
when the starting process ends.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Final, NoReturn, Self

from hfexport._internal.process import collect_rarely, die_with, python_command

__all__ = ["ForkedHere", "Standbys", "main"]

_PREPARING: Final = "hfexport._internal.standby"


_POLL_S: Final = 0.02


class ForkedHere:
    """A fork of this process, with the methods of `subprocess.Popen` that wait for it.

    Args:
        pid: process id.
        stdin: pipe on which the fork waits for its job.
    """

    def __init__(self, pid: int, stdin: IO[bytes]) -> None:
        self.pid = pid
        self.stdin: IO[bytes] | None = stdin
        self.args = [_PREPARING]
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; `None` while the fork runs."""
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit code.

        Raises:
            subprocess.TimeoutExpired: the fork did not exit within `timeout` seconds.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if end is not None and time.monotonic() > end:
                assert timeout is not None
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(_POLL_S)
        return code

    def kill(self) -> None:
        """Kill the fork if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


class Standbys:
    """Waiting processes of one run, by the module whose job they will run. `stop` ends those that were not used."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[subprocess.Popen[bytes] | ForkedHere, dict[str, str]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def prepare(self, module: str, env: Mapping[str, str], arguments: Sequence[str] = ()) -> None:
        """Start a process for the next job of `module`; return at once.

        Args:
            module: module with `run(job)` and `prepare(*arguments)`, which imports what `run` needs.
            env: complete environment of the process.
            arguments: arguments of `prepare`.
        """
        if module in self._waiting:
            return
        process = subprocess.Popen(
            python_command(_PREPARING, str(os.getpid()), module, *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=dict(env),
            start_new_session=True,
        )
        self._waiting[module] = process, dict(env)

    def fork(self, module: str, env: Mapping[str, str]) -> None:
        """Fork this process for the next job of `module`; return at once.

        The fork has the restrictions of this process and shares its memory until one of them writes to it. This process
        must have imported what the job needs and nothing else: no model may exist, no computation may have started
        threads of a library, and no code of others may have run.

        Args:
            module: module with `run(job)`.
            env: complete environment of the fork.
        """
        if module in self._waiting:
            return
        parent, (reading, writing) = os.getpid(), os.pipe()
        gc.freeze()  # a collection would write to the shared memory of every object
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads that only hash files do not matter
            pid = os.fork()
        if pid == 0:
            os.close(writing)
            _become(parent, reading, env)
        os.close(reading)
        self._waiting[module] = ForkedHere(pid, os.fdopen(writing, "wb")), dict(env)

    def take(
        self, prepared_by: str, env: Mapping[str, str], module: str, job: Path
    ) -> subprocess.Popen[bytes] | ForkedHere | None:
        """Give a job file to the process that waits for one.

        Args:
            prepared_by: module that the process was started for.
            env: complete environment that it must have.
            module: module that runs the job.
            job: path of the job file.

        Returns:
            The process; `None` if none waits, if it has ended, or if it has another environment than `env`.
        """
        if prepared_by not in self._waiting or self._waiting[prepared_by][1] != dict(env):
            return None
        process, _ = self._waiting.pop(prepared_by)
        assert process.stdin is not None
        try:
            process.stdin.write(f"{module}\t{job}\n".encode())
            process.stdin.close()
        except OSError:  # it has ended
            _end(process)
            return None
        return process

    def stop(self) -> None:
        """End the processes that still wait."""
        while self._waiting:
            _, (process, _) = self._waiting.popitem()
            _end(process)


def _end(process: subprocess.Popen[bytes] | ForkedHere) -> None:
    process.kill()
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()
    process.wait()


def main(parent: str, module: str, *arguments: str) -> None:
    """Import what the jobs of `module` need, wait for a job file, and run it."""
    collect_rarely()
    die_with(int(parent))
    with suppress(Exception):  # the job meets the same error and reports it
        importlib.import_module(module).prepare(*arguments)
    _run_next(sys.stdin.readline())


def _become(parent: int, reading: int, env: Mapping[str, str]) -> NoReturn:
    """Turn this fork into a standby whose modules have been imported."""
    try:
        os.setsid()
        die_with(parent)
        os.environ.clear()
        os.environ.update(env)
        nothing = os.open(os.devnull, os.O_RDWR)
        for target in (0, 1, 2):
            os.dup2(nothing, target)
        sys.stdin, sys.stdout, sys.stderr = sys.__stdin__, sys.__stdout__, sys.__stderr__
        with os.fdopen(reading, encoding="utf-8") as waiting:
            line = waiting.readline()
        _run_next(line)
    except BaseException:  # noqa: BLE001  print it, as the interpreter does with uncaught exceptions
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def _run_next(line: str) -> None:
    """Run the job that a line names, with its output in a file beside it; return if there is none."""
    module, _, job = line.rstrip("\n").partition("\t")
    if not job:
        return
    path = Path(job)
    log = os.open(path.with_name("output.log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.chdir(path.parent)
    importlib.import_module("hfexport._internal.workers").run_job(module, path)
