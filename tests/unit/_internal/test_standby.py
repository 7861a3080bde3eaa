"""Processes that are started before their jobs are known: they work as others do, and none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hfexport._internal import workers
from hfexport._internal.process import Limits
from hfexport._internal.standby import Standbys
from hfexport._internal.workers import Worker, child_environment
from hfexport.errors import CheckpointError, ValidationError

MODULE = """
import os, sys
from pathlib import Path
from hfexport.errors import CheckpointError

def prepare(path=""):
    if path == "broken":
        raise ImportError("no such package")
    Path(path).write_text(str(os.getpid()))

def run(job):
    if job["kind"] == "refuse":
        raise CheckpointError("the file is short", remedy="Copy it again.")
    if job["kind"] == "greedy":
        bytearray(2**31)
    print("noise")
    read = sys.stdin.read()
    return {"pid": os.getpid(), "env": dict(os.environ), "cwd": os.getcwd(), "session": os.getsid(0), "read": read}
"""


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "early_module.py").write_text(MODULE)
    return child_environment({**os.environ, "PYTHONPATH": str(tmp_path / "modules")})


@pytest.fixture
def standbys() -> Iterator[Standbys]:
    with Standbys() as found:
        yield found


def prepare(standbys: Standbys, env: dict[str, str], path: Path) -> int:
    """Start a process, and return its number when it has imported everything."""
    standbys.prepare("early_module", env, [str(path)])
    while not path.exists() or not path.read_text():
        time.sleep(0.02)
    return int(path.read_text())


def start(
    tmp_path: Path, env: dict[str, str], standbys: Standbys, kind: str = "answer", limits: Limits | None = None
) -> Worker:
    return workers.start(
        "early_module",
        {"kind": kind},
        name="the child",
        folder=tmp_path / "work",
        env=env,
        limits=limits,
        standbys=standbys,
    )


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_waiting_process_runs_the_job_and_only_one(tmp_path: Path, env: dict[str, str], standbys: Standbys) -> None:
    waiting = prepare(standbys, env, tmp_path / "pid")
    with start(tmp_path, env, standbys) as worker:
        answer = worker.result()
    assert answer["pid"] == answer["session"] == worker.pid == waiting
    assert answer["cwd"] == str(tmp_path / "work")
    assert {name: value for name, value in answer["env"].items() if name in env} == env
    assert answer["read"] == ""
    assert (tmp_path / "work" / "output.log").read_text() == "noise\n"
    with start(tmp_path, env, standbys) as other:
        assert other.result()["pid"] != waiting


def test_its_errors_and_limits_are_those_of_any_child(tmp_path: Path, env: dict[str, str], standbys: Standbys) -> None:
    prepare(standbys, env, tmp_path / "first")
    with start(tmp_path, env, standbys, "refuse") as worker, pytest.raises(CheckpointError, match="is short"):
        worker.result()
    prepare(standbys, env, tmp_path / "second")
    limits = Limits(memory_bytes=2**30, cpu_s=60)
    with (
        start(tmp_path, env, standbys, "greedy", limits) as worker,
        pytest.raises(ValidationError, match="more memory"),
    ):
        worker.result()


def test_a_process_with_another_environment_is_not_used(
    tmp_path: Path, env: dict[str, str], standbys: Standbys
) -> None:
    waiting = prepare(standbys, {**env, "LANG": "other"}, tmp_path / "pid")
    with start(tmp_path, env, standbys) as worker:
        assert worker.result()["pid"] != waiting


def test_a_process_that_has_died_is_replaced(tmp_path: Path, env: dict[str, str], standbys: Standbys) -> None:
    waiting = prepare(standbys, env, tmp_path / "pid")
    os.kill(waiting, signal.SIGKILL)
    while is_running(waiting):
        time.sleep(0.02)
    with start(tmp_path, env, standbys) as worker:
        assert worker.result()["pid"] != waiting


def test_what_cannot_be_imported_is_left_to_the_job(tmp_path: Path, env: dict[str, str], standbys: Standbys) -> None:
    standbys.prepare("early_module", env, ["broken"])
    with start(tmp_path, env, standbys) as worker:
        assert worker.result()["pid"] == worker.pid


def test_leaving_ends_those_that_were_not_used(tmp_path: Path, env: dict[str, str]) -> None:
    with Standbys() as standbys:
        waiting = prepare(standbys, env, tmp_path / "pid")
        assert is_running(waiting)
    assert not is_running(waiting)


def test_none_outlives_a_parent_that_was_killed(tmp_path: Path, env: dict[str, str]) -> None:
    program = (
        "import os, sys, time\n"
        "from hfexport._internal.standby import Standbys\n"
        "Standbys().prepare('early_module', dict(os.environ), [sys.argv[1]])\n"
        "time.sleep(600)\n"
    )
    path = tmp_path / "pid"
    parent = subprocess.Popen([sys.executable, "-c", program, str(path)], env=env)
    while not path.exists() or not path.read_text():
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    waiting = int(path.read_text())
    while is_running(waiting):
        time.sleep(0.02)
