"""Child processes: what they see, what they answer, and that none outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hfexport._internal import workers
from hfexport._internal.forkserver import FORK_SERVERS, fork_servers
from hfexport._internal.process import Limits
from hfexport._internal.workers import Worker, available_cores, child_environment
from hfexport.errors import CheckpointError, ExportError, HfexportError, InputsError, InternalError, ValidationError

MODULE = """
import os, signal, sys, time
from pathlib import Path
from typing import Any
from hfexport.errors import CheckpointError, InputsError

def run(job):
    kind = job["kind"]
    if kind == "answer":
        print("noise")
        return {"job": job, "env": dict(os.environ), "path": sys.path, "cwd": os.getcwd(), "session": os.getsid(0)}
    if kind == "refuse":
        raise CheckpointError("the file is short", remedy="Copy it again.")
    if kind == "inputs":
        raise InputsError(["one", "two"])
    if kind == "bug":
        raise KeyError("a traceback")
    if kind == "garbage":
        Path("result.json").write_text("{not json")
        os._exit(0)
    if kind == "half":
        Path("result.json").write_text("[]")
        os._exit(0)
    if kind == "silent":
        os._exit(3)
    if kind == "robbed":
        Path("job.json").unlink()
        os._exit(0)
    if kind == "late":
        Path("result.json").write_text('{"status": "ok", "result": {}, "wall_s": 0, "peak_rss_bytes": 0}')
        os._exit(1)
    if kind == "loud":
        sys.stdout.write("::error::x\\x1b[31m\\n" * 100_000)
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGTERM)
    if kind == "greedy":
        bytearray(2**31)
    if kind == "wordy":
        Path("large").write_bytes(bytes(2**21))
    if kind == "busy":
        while True:
            pass
    if kind == "sleep":
        Path("started").touch()
        time.sleep(600)
"""


@pytest.fixture(params=["new interpreter", "forked"])
def env(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """An environment in which a module of the test's own is found, beside hfexport; for both ways of starting a child."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "worker_module.py").write_text(MODULE)
    (tmp_path / "modules" / "hfexport.py").write_text("raise SystemExit('the wrong hfexport')")
    environment = child_environment({**os.environ, "PYTHONPATH": str(tmp_path / "modules")})
    if request.param == "new interpreter":
        yield environment
        return
    with fork_servers(environment, {"plain": ["json"]}) as folder:
        yield {**environment, FORK_SERVERS: folder}


def start(
    tmp_path: Path,
    env: dict[str, str],
    kind: str,
    failure: type[HfexportError] = ValidationError,
    limits: Limits | None = None,
) -> Worker:
    return workers.start(
        "worker_module",
        {"kind": kind},
        name="the child",
        folder=tmp_path / "work",
        env=env,
        failure=failure,
        kind="plain",
        limits=limits,
    )


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_child_answers(tmp_path: Path, env: dict[str, str]) -> None:
    with start(tmp_path, env, "answer") as worker:
        answer = worker.result()
        assert worker.result() == answer
    assert answer["job"] == {"kind": "answer"}
    assert answer["wall_s"] > 0
    assert 1 << 20 < answer["peak_rss_bytes"] < 1 << 30
    assert answer["cwd"] == str(tmp_path / "work")
    assert answer["session"] == worker.pid
    assert (tmp_path / "work" / "output.log").read_text() == "noise\n"
    assert not worker.running and worker.died_of is None and not worker.timed_out


def test_a_child_imports_nothing_from_where_it_or_its_parent_works(tmp_path: Path, env: dict[str, str]) -> None:
    work = tmp_path / "work"
    work.mkdir()
    for name in ("json", "importlib", "hfexport", "numpy"):
        (work / f"{name}.py").write_text("raise SystemExit('code of the workspace ran')")
    answer = start(tmp_path, env, "answer").result()
    assert str(work) not in answer["path"] and "" not in answer["path"]


def test_a_child_sees_no_token_and_no_input() -> None:
    given = {
        "PATH": "/bin",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "OMP_NUM_THREADS": "2",
        "HF_HOME": "/cache",
        "HF_TOKEN": "secret",
        "HUGGING_FACE_HUB_TOKEN": "secret",
        "INPUT_HUB-TOKEN": "secret",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "secret",
        "GITHUB_TOKEN": "secret",
        "GITHUB_OUTPUT": "/file",
        "PYTHONSTARTUP": "/code.py",
        "LD_PRELOAD": "/code.so",
        "https_proxy": "http://user:secret@proxy",
    }
    kept = child_environment(given)
    assert {name: kept[name] for name in given if name in kept} == {
        "PATH": "/bin",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "OMP_NUM_THREADS": "2",
        "HF_HOME": "/cache",
    }
    assert kept["HF_HUB_OFFLINE"] == "1"
    assert "secret" not in str(kept)
    assert child_environment(kept) == kept


def test_a_childs_environment_is_the_one_given(tmp_path: Path, env: dict[str, str], monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    answer = start(tmp_path, env, "answer").result()
    assert "HF_TOKEN" not in answer["env"]
    assert set(env) <= set(answer["env"])


def test_errors_of_a_child_come_back_as_they_were(tmp_path: Path, env: dict[str, str]) -> None:
    with pytest.raises(CheckpointError) as caught:
        start(tmp_path, env, "refuse").result()
    assert (caught.value.message, caught.value.remedy) == ("the file is short", "Copy it again.")
    with pytest.raises(InputsError) as inputs:
        start(tmp_path, env, "inputs").result()
    assert inputs.value.problems == ("one", "two")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("bug", r"KeyError: 'a traceback'"),
        ("garbage", "exit code 0 and no readable answer"),
        ("half", "exit code 0 and an invalid answer"),
        ("silent", "exit code 3 and no readable answer"),
        ("late", "exit code 1 and an invalid answer"),
    ],
)
def test_a_child_without_an_answer_is_a_bug(
    tmp_path: Path, env: dict[str, str], kind: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "REMOVAL_S", 0.0)
    with pytest.raises(InternalError, match=message) as caught:
        start(tmp_path, env, kind).result()
    assert caught.value.exit_code == 1
    assert ("Traceback" in caught.value.details) == (kind == "bug")


def test_an_answer_that_was_removed_is_no_bug(tmp_path: Path, env: dict[str, str]) -> None:
    with pytest.raises(FileNotFoundError, match="result.json"):
        start(tmp_path, env, "robbed").result()


def test_an_old_answer_is_not_taken_for_a_new_one(
    tmp_path: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "REMOVAL_S", 0.0)
    start(tmp_path, env, "answer").result()
    with pytest.raises(HfexportError, match="no readable answer"):
        start(tmp_path, env, "silent").result()


def test_a_killed_child_most_likely_ran_out_of_memory(tmp_path: Path, env: dict[str, str]) -> None:
    with start(tmp_path, env, "sleep", ExportError) as worker:
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(ExportError, match="the child: killed by SIGKILL, most likely because memory ran out"):
            worker.result()
        assert worker.died_of is signal.SIGKILL


def test_the_end_of_a_childs_output_is_shown_bounded_and_harmless(tmp_path: Path, env: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="ended by SIGTERM") as caught:
        start(tmp_path, env, "loud").result()
    lines = caught.value.message.splitlines()
    assert 2 < len(lines) <= 21
    assert all(line.startswith("  | ") for line in lines[1:])
    assert "\x1b" not in caught.value.message


def test_a_child_that_takes_too_long_is_stopped(tmp_path: Path, env: dict[str, str]) -> None:
    worker = start(tmp_path, env, "sleep")
    for _ in range(2):
        with pytest.raises(ValidationError, match=r"not finished after 0\.2 s"):
            worker.result(0.2)
    assert worker.timed_out and not worker.running


def test_leaving_stops_the_child(tmp_path: Path, env: dict[str, str]) -> None:
    with start(tmp_path, env, "sleep") as worker:
        wait_for(tmp_path / "work" / "started")
        assert worker.running
    assert not worker.running


def test_forgetting_the_worker_stops_the_child(tmp_path: Path, env: dict[str, str]) -> None:
    pid = start(tmp_path, env, "sleep").pid
    assert not is_running(pid)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PR_SET_PDEATHSIG is Linux's")
def test_a_child_dies_with_a_parent_that_was_killed(tmp_path: Path, env: dict[str, str]) -> None:
    program = (
        "import os, sys, time\nfrom pathlib import Path\nfrom hfexport._internal import workers\n"
        "worker = workers.start('worker_module', {'kind': 'sleep'}, name='c', folder=Path(sys.argv[1]), env=os.environ)\n"
        "print(worker.pid, flush=True)\ntime.sleep(600)\n"
    )
    root = str(Path(workers.__file__).parents[2])
    parent_env = {**env, "PYTHONPATH": os.pathsep.join([root, env["PYTHONPATH"]])}
    command = [sys.executable, "-c", program, str(tmp_path / "work")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=parent_env) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        wait_for(tmp_path / "work" / "started")
        assert is_running(pid)
        parent.kill()
    deadline = time.monotonic() + 30
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(pid)


def test_cores_follow_what_the_user_asked_for() -> None:
    assert available_cores({"OMP_NUM_THREADS": "3"}) == 3
    assert available_cores({"OMP_NUM_THREADS": "4,2"}) == 4
    assert available_cores({"OMP_NUM_THREADS": "nonsense"}) == available_cores({}) >= 1


def test_a_childs_output_is_followed_to_its_end(tmp_path: Path) -> None:
    program = (
        "import sys, time\nfor n in range(3): print(n, flush=True); time.sleep(0.1)\nsys.stdout.write('half a line')"
    )
    worker = workers.launch(
        [sys.executable, "-c", program], name="c", folder=tmp_path, env={}, failure=ExportError, tied=True
    )
    with worker:
        assert list(worker.follow(60.0)) == ["0", "1", "2", "half a line"]
        assert worker.wait(60.0) == 0


def test_following_ends_when_the_time_is_over(tmp_path: Path) -> None:
    program = "import time; print('x' * 10_000, flush=True); time.sleep(600)"
    command = [sys.executable, "-c", program]
    with workers.launch(command, name="c", folder=tmp_path, env={}, failure=ExportError) as worker:
        assert "".join(worker.follow(1.0)) == "x" * 10_000
        with pytest.raises(ExportError, match="not finished"):
            worker.wait(0.1)


def test_a_child_takes_no_more_than_it_may(tmp_path: Path, env: dict[str, str]) -> None:
    limits = Limits(memory_bytes=2**30, cpu_s=1, file_bytes=2**20)
    with (
        start(tmp_path, env, "greedy", CheckpointError, limits) as worker,
        pytest.raises(CheckpointError, match="the child: used more memory than"),
    ):
        worker.result()
    with (
        start(tmp_path, env, "busy", CheckpointError, limits) as worker,
        pytest.raises(CheckpointError, match="the child: ended by SIGXCPU"),
    ):
        worker.result()
    with start(tmp_path, env, "wordy", CheckpointError, limits) as worker, pytest.raises(HfexportError):
        worker.result()
    assert (tmp_path / "work" / "large").stat().st_size <= 2**20
    assert start(tmp_path, env, "answer", limits=limits).result()["job"] == {"kind": "answer"}
