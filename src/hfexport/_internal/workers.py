"""Child processes of hfexport's own: started with a job, ended with an answer, never left behind.

A job is JSON in `job.json`; the answer is JSON in `result.json`; whatever the child prints goes to `output.log`.
A child runs one module's `run(job) -> dict`. Standard library only.
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
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn, Self

from hfexport._internal.answers import answer_to, answer_to_any, error_from
from hfexport._internal.forkserver import FORK_SERVERS, Forked, fork
from hfexport._internal.process import Limits, collect_rarely, die_with, end_process, python_command
from hfexport._internal.room import is_no_room, no_room
from hfexport.errors import HfexportError, InternalError, ValidationError

__all__ = ["Worker", "available_cores", "child_environment", "launch", "main", "run_job", "start"]

LOG_TAIL_BYTES: Final = 4096
LOG_TAIL_LINES: Final = 20
"""How much of the end of a child's output an error shows, at most."""

LOG_LINE_BYTES: Final = 4096
"""A longer line of a child's output is shown as several."""

POLL_S: Final = 0.2
"""How often a child's output is looked at for new lines."""

NO_ROOM: Final = 28
"""Exit code of a child that cannot write its answer since the disk is full; the number of ENOSPC."""

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
"""Children work on local files; they reach no hub and read no stored token."""


def child_environment(env: Mapping[str, str]) -> dict[str, str]:
    """What of `env` a child may see: an allow-list, so that no token and no `INPUT_*` reaches it.

    Applying it twice changes nothing.
    """
    kept = {name: value for name, value in env.items() if name in _ALLOWED or name.startswith(_ALLOWED_PREFIXES)}
    return kept | _OFFLINE


def available_cores(env: Mapping[str, str]) -> int:
    """Threads worth starting: `OMP_NUM_THREADS` of `env`, or the cores that this process may run on."""
    asked = env.get("OMP_NUM_THREADS", "").split(",")[0]
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_cores()
    return cores if quota is None else max(1, min(cores, round(quota)))


def _cgroup_cores() -> float | None:
    """The CPU quota of a container, in cores (cgroup v2, then v1); `None` where there is none."""
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
    """A running child. Use it as a context manager, or call `stop`: leaving kills whatever still runs.

    The child is also killed when this object is collected, when the interpreter exits, and, on Linux, when the thread
    that started it ends in whatever way.

    Attributes:
        name: what it does, for messages: `reference`, `runner for onnx`.
        folder: holds job.json, result.json and output.log.
    """

    def __init__(
        self, name: str, folder: Path, process: subprocess.Popen[bytes] | Forked, failure: type[HfexportError]
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
        """Whether `result` stopped it because it took too long."""
        return self._timed_out_s is not None

    def stop(self) -> None:
        """Kill the child and its process group, if it still runs."""
        self._finalizer()

    def result(self, timeout_s: float | None = None) -> dict[str, Any]:
        """Wait for the answer; asking again gives it again.

        Returns:
            What the child's `run` returned, with `wall_s` (seconds since its start) and `peak_rss_bytes` (its largest
            resident set; 0 where the system does not say).

        Raises:
            HfexportError: the child raised it; same class, message and remedy. The base class itself if the child
                ended with a traceback, which is a bug. The `failure` class given to `start` if the child was killed
                or took longer than `timeout_s`.
        """
        code = self.wait(timeout_s)
        answer = self._read_answer(code)
        if answer["status"] in ("error", "bug"):
            raise error_from(answer, self.name)
        if answer["status"] == "memory":
            raise self._failure(
                f"{self.name}: takes more memory than what it is about should need: {answer['message']}"
            )
        return {**answer["result"], "wall_s": answer["wall_s"], "peak_rss_bytes": answer["peak_rss_bytes"]}

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for the end, whatever the child answers; returns its exit code.

        Raises:
            HfexportError: the `failure` class given to `start`: it was killed, or took longer than `timeout_s`.
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

    def follow(self, timeout_s: float) -> Iterator[str]:
        """What the child prints, line by line as it comes, until it ends or `timeout_s` have passed."""
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
                time.sleep(POLL_S)

    def log_tail(self) -> str:
        """The end of what the child printed, ready to follow a message; empty if it printed nothing."""
        try:
            with (self.folder / "output.log").open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(0, size - LOG_TAIL_BYTES))
                text = log.read().decode("utf-8", errors="replace")
        except OSError:
            return ""
        lines = ["".join(c if c.isprintable() else " " for c in line).rstrip() for line in text.splitlines()]
        lines = [line for line in lines if line][-LOG_TAIL_LINES:]
        # The bar keeps a line from being read as a command by whatever reads our own output.
        return "".join(f"\n  | {line}" for line in lines)

    def _killed(self, which: signal.Signals) -> HfexportError:
        if which == signal.SIGKILL:
            return self._failure(
                f"{self.name}: killed by SIGKILL, most likely because memory ran out{self.log_tail()}",
                remedy="Use a machine or container with more memory.",
            )
        return self._failure(f"{self.name}: ended by {which.name}{self.log_tail()}")

    def _read_answer(self, code: int) -> dict[str, Any]:
        if code == NO_ROOM:
            raise no_room(self.folder)
        try:
            answer = json.loads((self.folder / "result.json").read_bytes())
        except (OSError, ValueError) as error:
            raise InternalError(
                f"{self.name}: ended with exit code {code} and no readable answer{self.log_tail()}"
            ) from error
        if code != 0 or not isinstance(answer, dict) or answer.get("status") not in ("ok", "error", "memory", "bug"):
            raise InternalError(
                f"{self.name}: ended with exit code {code} and an answer that is not one{self.log_tail()}"
            )
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
) -> Worker:
    """Start `module` of hfexport in a fresh process, and return at once.

    Args:
        module: full name, such as `hfexport.validation.reference.worker`; it has `run(job) -> dict`.
        job: JSON values; paths in it must be absolute, for the child's working directory is `folder`.
        name: for messages.
        folder: made if it does not exist; holds the job, the answer and the log.
        env: the child's whole environment; see `child_environment`.
        failure: the class to raise when the child is killed or takes too long.
        kind: of fork server (see `hfexport._internal.forkserver`) to have it from, if one runs.
        limits: what it may use; to go past them ends it with `failure`.
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
    if (forked := fork(kind, {**request, "log": str(folder / "output.log")}, env)) is not None:
        return Worker(name, folder, forked, failure)
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
        command: the program, by its absolute path, and its arguments.
        name: for messages.
        folder: gets output.log, with what the command prints.
        env: the command's whole environment.
        failure: the class to raise when it is killed or takes too long.
        tied: give it a pipe as standard input that closes when this process ends or stops it.
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


def _kill(process: subprocess.Popen[bytes] | Forked) -> None:
    if process.stdin is not None:
        process.stdin.close()
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            process.kill()
        process.wait()


def main(module: str, job: str) -> None:
    """The child's side in a new interpreter: run the job of that file, for as long as the parent lives."""
    collect_rarely()
    path = Path(job).resolve()
    die_with(int(json.loads(path.read_bytes())["parent"]))
    run_job(module, path)


def run_job(module: str, path: Path) -> NoReturn:
    """Run the job that `path` holds with `module`, write the answer beside it, and end the process."""
    content = json.loads(path.read_bytes())
    if content["limits"] is not None:
        Limits(**content["limits"]).impose()
    try:
        answer: dict[str, Any] = {"status": "ok", "result": importlib.import_module(module).run(content["job"])}
    except HfexportError as error:
        answer = answer_to(error)
    except Exception as error:  # noqa: BLE001  the boundary of a child: its parent is told, whatever it is
        answer = answer_to_any(error, limited=content["limits"] is not None)
    answer["wall_s"] = round(time.monotonic() - float(content["started"]), 3)
    answer["peak_rss_bytes"] = _peak_rss_bytes()
    staged = path.with_name("result.json.part")
    try:
        staged.write_text(json.dumps(answer), encoding="utf-8")
        os.replace(staged, path.with_name("result.json"))
    except OSError as error:
        end_process(NO_ROOM if is_no_room(error) else 1)
    end_process(0)


def _peak_rss_bytes() -> int:
    """Largest resident set of this process. `ru_maxrss` would not do: a child starts with its parent's."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0)
