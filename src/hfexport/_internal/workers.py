"""Run a module of hfexport in a child process: send a job, read an answer, and never leave the child behind.

The job is JSON in `job.json`, the answer is JSON in `result.json`, and everything that the child prints goes to
`output.log`. A child runs `run(job) -> dict` of one module. Standard library only.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn, Self

from hfexport._internal.answers import answer_to, answer_to_any, error_from
from hfexport._internal.forkserver import FORK_SERVERS, Forked, fork
from hfexport._internal.peak_memory import own_peak_bytes
from hfexport._internal.process import Limits, collect_rarely, die_with, end_process, python_command
from hfexport._internal.room import is_no_room, no_room
from hfexport._internal.standby import ForkedHere, Standbys
from hfexport.errors import HfexportError, InternalError, ValidationError

__all__ = ["Worker", "available_cores", "child_environment", "launch", "main", "run_job", "start", "timeout_for"]

LEAST_TIMEOUT_S: Final = 900.0
TIMEOUT_S_PER_GB: Final = 900.0
"""Time limit of a child that reads weights: a constant, plus a share that grows with their size."""

LOG_TAIL_BYTES: Final = 4096
LOG_TAIL_LINES: Final = 20
"""Maximum size of the part of a child's output that an error shows."""

LOG_LINE_BYTES: Final = 4096
"""Longer lines of a child's output are split."""

POLL_S: Final = 0.2
"""Interval for reading new lines of a child's output."""

REMOVAL_S: Final = 0.4
"""Longest wait for job.json to disappear when an answer is missing."""

NO_ROOM: Final = 28
"""Exit code of a child that cannot write its answer because the disk is full; the number of ENOSPC."""

_ALLOWED: Final = frozenset(
    (
        *("PATH", "HOME", "TMPDIR", "TEMP", "TMP", "LANG", "LANGUAGE", "TZ", "SYSTEMROOT", "LD_LIBRARY_PATH"),
        *(
            "PYTHONPATH",
            "PYTHONHOME",
            "PYTHONUSERBASE",
            "VIRTUAL_ENV",
            "XDG_CACHE_HOME",
            "HF_HOME",
            "HF_HUB_CACHE",
            "HF_MODULES_CACHE",
        ),
        *("MALLOC_ARENA_MAX", "OPENBLAS_NUM_THREADS", FORK_SERVERS),
    )
)
_ALLOWED_PREFIXES: Final = ("LC_", "OMP_", "MKL_", "KMP_", "GOMP_")

_OFFLINE: Final = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
"""Children work on local files: they do not contact the Hub or read a stored token."""


def child_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of `env` on an allow-list, so that no token and no `INPUT_*` reaches a child.

    Applying it twice gives the same result.
    """
    kept = {name: value for name, value in env.items() if name in _ALLOWED or name.startswith(_ALLOWED_PREFIXES)}
    return kept | _OFFLINE


def timeout_for(weight_bytes: int) -> float:
    """Return the default time limit in seconds of a child that reads `weight_bytes` bytes of weights."""
    return LEAST_TIMEOUT_S + TIMEOUT_S_PER_GB * weight_bytes / 1e9


def available_cores(env: Mapping[str, str]) -> int:
    """Return the number of threads to use: `OMP_NUM_THREADS` of `env`, or the cores available to this process."""
    asked = env.get("OMP_NUM_THREADS", "").split(",")[0]
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_cores()
    return cores if quota is None else max(1, min(cores, round(quota)))


def _cgroup_cores() -> float | None:
    """Return a container's CPU quota in cores (cgroup v2, then v1); `None` if there is none."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        folder = Path("/sys/fs/cgroup/cpu")
        try:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="ascii")
            period = (folder / "cpu.cfs_period_us").read_text(encoding="ascii")
        except OSError:
            return None
    try:
        cores = int(quota) / int(period)
    except ValueError:  # `max`: no quota
        return None
    return cores if cores > 0 else None


class Worker:
    """A running child. Use it as a context manager or call `stop`, which kills the child if it still runs.

    The child is also killed when this object is collected, when the interpreter exits, and on Linux when the thread
    that started it ends in any way.

    Attributes:
        name: name for messages, such as `reference` or `runner for onnx`.
        folder: folder with job.json, result.json and output.log.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        process: subprocess.Popen[bytes] | Forked | ForkedHere,
        failure: type[HfexportError],
    ) -> None:
        self.name = name
        self.folder = folder
        self._process = process
        self._failure = failure
        self._timed_out_s: float | None = None
        self._finalizer = weakref.finalize(self, _kill, process)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def died_of(self) -> signal.Signals | None:
        """The signal that ended the child, if one did."""
        code = self._process.poll()
        return signal.Signals(-code) if code is not None and code < 0 else None

    @property
    def timed_out(self) -> bool:
        """Whether the child was stopped because it exceeded its time limit."""
        return self._timed_out_s is not None

    def stop(self) -> None:
        """Kill the child and its process group if it still runs."""
        self._finalizer()

    def result(self, timeout_s: float | None = None) -> dict[str, Any]:
        """Wait for the answer and return it; a second call returns it again.

        Returns:
            The result of the child's `run`, with `wall_s` (seconds since its start) and `peak_rss_bytes` (its largest
            resident set; 0 if the system does not report it).

        Raises:
            HfexportError: the child raised it; same class, message and remedy. `InternalError` if the child ended
                with a traceback, which is a bug. The `failure` class given to `start` if the child was killed or
                exceeded `timeout_s`.
        """
        code = self.wait(timeout_s)
        answer = self._read_answer(code)
        if answer["status"] in ("error", "bug"):
            raise error_from(answer, self.name)
        if answer["status"] == "memory":
            raise self._failure(f"{self.name}: used more memory than its input should require: {answer['message']}")
        return {**answer["result"], "wall_s": answer["wall_s"], "peak_rss_bytes": answer["peak_rss_bytes"]}

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for the child to end and return its exit code, without reading its answer.

        Raises:
            HfexportError: the `failure` class given to `start`: the child was killed or exceeded `timeout_s`.
        """
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as expired:
            self._timed_out_s = timeout_s
            self.stop()
            raise self._failure(
                f"{self.name}: not finished after {timeout_s:g} s; stopped{self.log_tail()}",
                remedy="Use a machine with more or faster cores, or a smaller model.",
            ) from expired
        if self._timed_out_s is not None:
            raise self._failure(f"{self.name}: not finished after {self._timed_out_s:g} s; stopped")
        if code < 0:
            raise self._killed(signal.Signals(-code))
        return code

    def pause(self, seconds: float) -> None:
        """Wait until the child ends, but at most `seconds`."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def follow(self, timeout_s: float) -> Iterator[str]:
        """Yield the lines that the child prints, until it ends or `timeout_s` have passed."""
        end = time.monotonic() + timeout_s
        with (self.folder / "output.log").open("rb") as log:
            while True:
                last_look = not self.running or time.monotonic() > end
                while line := log.readline(LOG_LINE_BYTES):
                    if not line.endswith(b"\n") and not last_look and len(line) < LOG_LINE_BYTES:
                        log.seek(-len(line), os.SEEK_CUR)
                        break
                    yield line.decode("utf-8", errors="replace").rstrip("\r\n")
                if last_look:
                    return
                self.pause(min(POLL_S, max(0.0, end - time.monotonic())))

    def log_tail(self) -> str:
        """Return the last lines that the child printed, formatted to follow a message; empty if there are none."""
        try:
            with (self.folder / "output.log").open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(0, size - LOG_TAIL_BYTES))
                text = log.read().decode("utf-8", errors="replace")
        except OSError:
            return ""
        lines = ["".join(c if c.isprintable() else " " for c in line).rstrip() for line in text.splitlines()]
        lines = [line for line in lines if line][-LOG_TAIL_LINES:]
        # The bar keeps a runner from interpreting such a line as a workflow command.
        return "".join(f"\n  | {line}" for line in lines)

    def _killed(self, which: signal.Signals) -> HfexportError:
        if which == signal.SIGKILL:
            return self._failure(
                f"{self.name}: killed by SIGKILL, most likely because memory ran out{self.log_tail()}",
                remedy="Use a machine or container with more memory.",
            ).by("machine")
        return self._failure(f"{self.name}: ended by {which.name}{self.log_tail()}")

    def _is_folder_removed(self) -> bool:
        """Return whether another process has removed the folder; wait shortly for a removal in progress to reach job.json."""
        end = time.monotonic() + REMOVAL_S
        while (self.folder / "job.json").exists():
            if time.monotonic() >= end:
                return False
            time.sleep(POLL_S / 10)
        return True

    def _read_answer(self, code: int) -> dict[str, Any]:
        if code == NO_ROOM:
            raise no_room(self.folder)
        try:
            answer = json.loads((self.folder / "result.json").read_bytes())
        except (OSError, ValueError) as error:
            if isinstance(error, FileNotFoundError) and self._is_folder_removed():
                raise
            raise InternalError(
                f"{self.name}: ended with exit code {code} and no readable answer{self.log_tail()}"
            ) from error
        if code != 0 or not isinstance(answer, dict) or answer.get("status") not in ("ok", "error", "memory", "bug"):
            raise InternalError(f"{self.name}: ended with exit code {code} and an invalid answer{self.log_tail()}")
        return answer


def start(
    module: str,
    job: Mapping[str, Any],
    *,
    name: str,
    folder: Path,
    env: Mapping[str, str],
    failure: type[HfexportError] = ValidationError,
    kind: str = "",
    limits: Limits | None = None,
    servers: str = "",
    standbys: Standbys | None = None,
    prepared_by: str = "",
) -> Worker:
    """Start `module` of hfexport in a fresh process and return at once.

    Args:
        module: full name of a module with `run(job) -> dict`, such as `hfexport.validation.reference.worker`.
        job: JSON values; paths must be absolute, since the child's working directory is `folder`.
        name: name for messages.
        folder: folder for job, answer and log; created if missing.
        env: complete environment of the child; see `child_environment`.
        failure: class to raise if the child is killed or takes too long.
        kind: kind of fork server (see `hfexport._internal.forkserver`) to use if one runs.
        limits: resource limits; exceeding them ends the child with `failure`.
        servers: folder of the fork servers; if empty, the one that `env` names, which the child then gets as well.
        standbys: processes that were started early; one that waits for a job of `module` is used.
        prepared_by: module whose `prepare` such a process has run, if it is not `module`.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").unlink(missing_ok=True)
    path = folder / "job.json"
    header = {
        "parent": os.getpid(),
        "started": time.monotonic(),
        "limits": None if limits is None else asdict(limits),
    }
    path.write_text(json.dumps({**header, "job": dict(job)}), encoding="utf-8")
    request = {"runner": __name__, "module": module, "job": str(path), "folder": str(folder), "env": dict(env)}
    fork_env = {FORK_SERVERS: servers} if servers else env
    if (forked := fork(kind, {**request, "log": str(folder / "output.log")}, fork_env)) is not None:
        return Worker(name, folder, forked, failure)
    if standbys is not None and (waiting := standbys.take(prepared_by or module, env, module, path)) is not None:
        return Worker(name, folder, waiting, failure)
    command = python_command("hfexport._internal.workers", module, str(path))
    return launch(command, name=name, folder=folder, env=env, failure=failure)


def launch(
    command: Sequence[str],
    *,
    name: str,
    folder: Path,
    env: Mapping[str, str],
    failure: type[HfexportError],
    tied: bool = False,
) -> Worker:
    """Start a command in a process group of its own, with `folder` as its working directory, and return at once.

    Args:
        command: absolute path of the program, and its arguments.
        name: name for messages.
        folder: folder for output.log, which receives the command's output.
        env: complete environment of the command.
        failure: class to raise if the command is killed or takes too long.
        tied: give the command a pipe as standard input, which closes when this process ends or stops the command.
    """
    with (folder / "output.log").open("wb") as log:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE if tied else subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=dict(env),
            start_new_session=True,
        )
    return Worker(name, folder, process, failure)


def _kill(process: subprocess.Popen[bytes] | Forked | ForkedHere) -> None:
    if process.stdin is not None:
        process.stdin.close()
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            process.kill()
        process.wait()


def main(module: str, job: str) -> None:
    """Entry point of a child in a new interpreter: run the job file, and end if the parent ends."""
    collect_rarely()
    path = Path(job).resolve()
    die_with(int(json.loads(path.read_bytes())["parent"]))
    run_job(module, path)


def run_job(module: str, path: Path) -> NoReturn:
    """Run the job in `path` with `module`, write the answer beside it, and end the process."""
    content = json.loads(path.read_bytes())
    if content["limits"] is not None:
        Limits(**content["limits"]).impose()
    try:
        answer: dict[str, Any] = {"status": "ok", "result": importlib.import_module(module).run(content["job"])}
    except HfexportError as error:
        answer = answer_to(error)
    except Exception as error:  # noqa: BLE001  boundary of the child: every error is reported to the parent
        answer = answer_to_any(error, limited=content["limits"] is not None)
    answer["wall_s"] = round(time.monotonic() - float(content["started"]), 3)
    answer["peak_rss_bytes"] = own_peak_bytes() or 0
    staged = path.with_name("result.json.part")
    try:
        staged.write_text(json.dumps(answer), encoding="utf-8")
        os.replace(staged, path.with_name("result.json"))
    except OSError as error:
        end_process(NO_ROOM if is_no_room(error) else 1)
    end_process(0)
