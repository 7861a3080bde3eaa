"""Start child processes before their jobs are known, so that they import their modules meanwhile.

A standby is a new interpreter in a session of its own. It imports the modules that its job will need and then waits for
the path of a job file on its standard input. It ends when that closes, which happens when the starting process ends.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from hfexport._internal.process import collect_rarely, die_with, python_command

__all__ = ["Standbys", "main"]

_PREPARING: Final = "hfexport._internal.standby"


class Standbys:
    """Waiting processes of one run, by the module whose job they will run. `stop` ends those that were not used."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[subprocess.Popen[bytes], dict[str, str]]] = {}

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

    def take(self, prepared_by: str, env: Mapping[str, str], module: str, job: Path) -> subprocess.Popen[bytes] | None:
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


def _end(process: subprocess.Popen[bytes]) -> None:
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
    module, _, job = sys.stdin.readline().rstrip("\n").partition("\t")
    if not job:
        return
    path = Path(job)
    log = os.open(path.with_name("output.log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.chdir(path.parent)
    importlib.import_module("hfexport._internal.workers").run_job(module, path)
