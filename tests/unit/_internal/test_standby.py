"""Processes that are started before their jobs are known: they work as others do, and none is left behind."""

from __future__ import annotations

import json
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
import os, sys, time
from pathlib import Path
from hfexport.errors import CheckpointError

def prepare(path=""):
    if path == "broken":
        raise ImportError("no such package")
    Path(path).write_text(str(os.getpid()))

def attempt(act):
    try:
        act()
    except PermissionError:
        return False
    return True

def run(job):
    if job["kind"] == "refuse":
        raise CheckpointError("the file is short", remedy="Copy it again.")
    if job["kind"] == "greedy":
        bytearray(2**31)
    if job["kind"] == "sleep":
        time.sleep(600)
    if job["kind"] == "reach":
        return {"read": attempt(Path(job["hidden"]).read_text), "written": attempt(Path(job["outside"]).touch)}
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


def forked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env: dict[str, str], standbys: Standbys) -> None:
    """Fork a standby from this process, which can import the module."""
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    standbys.fork("early_module", env)


def test_a_fork_runs_its_job_as_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env: dict[str, str], standbys: Standbys
) -> None:
    forked(tmp_path, monkeypatch, env, standbys)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with start(tmp_path, env, standbys) as worker:
        result = worker.result(60.0)
    assert result["pid"] == worker.pid == result["session"] != os.getpid()
    assert result["env"] == env
    assert result["cwd"] == str((tmp_path / "work").resolve())
    assert result["read"] == ""
    assert "noise" in (tmp_path / "work" / "output.log").read_text()
    assert not is_running(worker.pid)


def test_an_error_of_a_fork_is_raised_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env: dict[str, str], standbys: Standbys
) -> None:
    forked(tmp_path, monkeypatch, env, standbys)
    with start(tmp_path, env, standbys, kind="refuse") as worker, pytest.raises(CheckpointError, match="short"):
        worker.result(60.0)


def test_a_killed_fork_says_so_and_an_unused_one_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env: dict[str, str], standbys: Standbys
) -> None:
    forked(tmp_path, monkeypatch, env, standbys)
    with start(tmp_path, env, standbys, kind="sleep") as worker:
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(ValidationError, match="killed by SIGKILL"):
            worker.result(60.0)
    forked(tmp_path, monkeypatch, env, standbys)
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = set(children.read_text().split())
    standbys.stop()
    ended = before - set(children.read_text().split())
    assert len(ended) == 1


def test_a_fork_has_the_restrictions_of_its_origin(tmp_path: Path, env: dict[str, str]) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import json, sys\n"
        "from pathlib import Path\n"
        "from hfexport._internal import workers\n"
        "from hfexport._internal.confined import confine\n"
        "from hfexport._internal.standby import Standbys\n"
        "work, env = Path(sys.argv[1]), json.loads(sys.argv[2])\n"
        "work.mkdir()\n"
        "held = confine([work.parent / 'hidden'], [work], network=False)\n"
        "with Standbys() as standbys:\n"
        "    standbys.fork('early_module', env)\n"
        "    job = {'kind': 'reach', 'hidden': str(work.parent / 'hidden'), 'outside': str(work.parent / 'outside')}\n"
        "    with workers.start('early_module', job, name='it', folder=work, env=env, standbys=standbys) as child:\n"
        "        print(json.dumps([held['files'], child.result(60.0)]))\n"
    )
    (tmp_path / "hidden").write_text("secret")
    command = [sys.executable, str(script), str(tmp_path / "work"), json.dumps(env)]
    found = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    files, result = json.loads(found.stdout)
    assert (result["read"], result["written"]) == ((False, False) if files == "denied" else (True, True))
