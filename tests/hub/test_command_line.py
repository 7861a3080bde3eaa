"""Publishing from the command line: keyless as on Actions, with a token, twice, and ended by signals at every stage."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hfexport._internal.forkserver import WARM_SERVERS
from hub.conftest import TOKEN, Finished, job_environment
from local_hub.server import LocalHub
from local_hub.store import Publisher

pytestmark = pytest.mark.thorough

MODEL = ("--model", "org/tiny")
PUSH = (*MODEL, "--push-to-hub", "true")
EXTERNAL = ("--external-data", "true")
QUICK = ("--formats", "torchscript", "--validate", "off", "--publish-unvalidated")


def everything_written(*folders: Path) -> bytes:
    """The content of every file below the folders, one after the other."""
    found = (path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file())
    return b"\n".join(path.read_bytes() for path in found)


def without_masks(text: str) -> str:
    """A log without the lines that tell the runner what to hide; it shows none of them."""
    return "\n".join(line for line in text.splitlines() if not line.startswith("::add-mask::"))


def test_keyless_and_then_nothing_to_do(
    hub: LocalHub, run: Callable[..., Finished], environment: dict[str, str], tmp_path: Path
) -> None:
    hub.oidc_job = "org/release"
    hub.publishers = [Publisher("org/release", "org/tiny")]
    runner = job_environment(hub, tmp_path)
    done = run(*PUSH, *EXTERNAL, **runner)
    assert done.exit_code == 0, done.said
    head = hub.repositories["org/tiny"].head()
    assert f"{hub.url}/org/tiny/commit/{head}" in (tmp_path / "commands" / "output").read_text()
    assert "Published to org/tiny" in (tmp_path / "commands" / "summary").read_text()
    (token,) = (one for one in hub.tokens if one.startswith("hf_jwt_"))
    written = everything_written(done.folder, tmp_path / "home", tmp_path / "commands")
    for secret in (token, "runner-secret", "id-token:"):
        assert secret not in without_masks(done.said)
        assert secret.encode() not in written
    manifest = json.loads(hub.read("org/tiny", "hfexport.json"))
    assert {artifact["validation"]["verdict"] for artifact in manifest["artifacts"]} == {"passed"}

    again = run(*PUSH, *EXTERNAL, PYTHONPROFILEIMPORTTIME="1", **runner)
    assert again.exit_code == 0, again.said
    assert "nothing to do" in again.said
    assert not re.search(r"\|\s+(torch|transformers|onnx|onnxruntime|numpy)$", again.stderr, flags=re.MULTILINE)
    assert hub.repositories["org/tiny"].head() == head
    assert "nothing_to_do" in (tmp_path / "commands" / "output").read_text()
    written_again = json.loads((again.folder / "hfexport-out" / "hfexport.json").read_bytes())
    assert written_again["publication"]["state"] == "nothing_to_do"
    assert written_again["artifacts"] == manifest["artifacts"]

    card = hub.read("org/tiny", "README.md").decode()
    snippets = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert len(snippets) == 2
    for snippet in snippets:
        loaded = subprocess.run(
            [sys.executable, "-c", f"{snippet}\nprint(outputs[0].shape)"],
            check=False,
            env={**environment, "HF_HOME": str(tmp_path / "reader")},
            capture_output=True,
            text=True,
        )
        assert loaded.returncode == 0, loaded.stderr
        assert "1, 3" in loaded.stdout

    verified = run("verify", "org/tiny")
    assert verified.exit_code == 0, verified.said
    assert "torchscript/model.pt: answers as the model does" in verified.stderr
    hub.change("org/tiny", {"torchscript/model.pt": b"something else"})
    assert run("verify", "org/tiny").exit_code == 6
    assert run("verify", "org/tiny", "--revision", head).exit_code == 0


def test_a_workflow_that_nobody_trusts(hub: LocalHub, run: Callable[..., Finished], tmp_path: Path) -> None:
    done = run(*PUSH, **job_environment(hub, tmp_path))
    assert done.exit_code == 7, done.said
    assert "trusted publisher" in done.said
    assert "Traceback" not in done.said


def test_no_token_at_all(run: Callable[..., Finished]) -> None:
    done = run(*PUSH)
    assert done.exit_code == 7, done.said
    assert "id-token: write" in done.stderr


def test_a_token_is_shown_nowhere_when_things_go_wrong(
    hub: LocalHub, run: Callable[..., Finished], tmp_path: Path
) -> None:
    for status, options in ((403, ("--hub-token", TOKEN)), (400, (f"--hub-token={TOKEN}",))):
        hub.faults.clear()
        hub.fail("tree", "status", status=status, times=1000)
        done = run(*PUSH, *options, "--verbose", "--json")
        assert done.exit_code == 7, done.said
        assert TOKEN not in done.said
    hub.faults.clear()
    wrong = run(*PUSH, "--hub-token", TOKEN, "--fromats", "onnx", TOKEN)
    assert wrong.exit_code == 2
    assert TOKEN not in wrong.said
    for variable in ("INPUT_HUB-TOKEN", "HF_TOKEN"):
        done = run("--model", "org/absent", "--verbose", **{variable: TOKEN})
        assert done.exit_code == 3
        assert TOKEN not in done.said
    assert TOKEN.encode() not in everything_written(tmp_path)


def children_of(pid: int) -> list[int]:
    """All processes below one, as far as they are still there."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except OSError:  # the thread has ended
            continue
        for child in children:
            found += [child, *children_of(child)]
    return found


class Ended:
    """Runs the command line until the Hub gets a certain call, then sends a signal."""

    def __init__(self, hub: LocalHub, environment: dict[str, str], folder: Path) -> None:
        self.hub, self.environment, self.folder = hub, environment, folder

    def at(
        self, call: str, which: signal.Signals, *options: str, done: bool = False, to: str = "true"
    ) -> subprocess.Popen[str]:
        fault = self.hub.fail(call, "held", done=done)
        process = subprocess.Popen(
            [sys.executable, "-m", "hfexport", *MODEL, "--push-to-hub", to, *QUICK, "--hub-token", TOKEN, *options],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            while not fault.held.reached.wait(1):
                assert process.poll() is None, f"ended before any call {call}: {process.communicate()[0]}"
            process.send_signal(which)
            output, _ = process.communicate(timeout=60)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            fault.held.released.set()
        assert TOKEN not in output
        if which == signal.SIGTERM:
            assert process.returncode == 143, output
            assert "Traceback" not in output
        else:
            assert process.returncode == -which
        return process


@pytest.fixture
def ended(hub: LocalHub, environment: dict[str, str], tmp_path: Path) -> Ended:
    return Ended(hub, environment, tmp_path)


@pytest.mark.parametrize(
    ("call", "which"),
    [
        *(("info", signal.SIGKILL), ("resolve", signal.SIGTERM), ("tree", signal.SIGTERM)),
        *(("preupload", signal.SIGTERM), ("lfs-batch", signal.SIGKILL), ("lfs-upload", signal.SIGTERM)),
        *(("lfs-upload", signal.SIGKILL), ("lfs-verify", signal.SIGTERM)),
    ],
)
def test_ended_before_the_commit_the_repository_is_as_it_was(
    hub: LocalHub, ended: Ended, call: str, which: signal.Signals, tmp_path: Path
) -> None:
    before = dict(hub.repositories["org/tiny"].refs)
    ended.at(call, which)
    assert hub.repositories["org/tiny"].refs == before
    output = tmp_path / "hfexport-out"
    made = (output / "torchscript" / "model.pt").exists()
    assert made == (call in ("preupload", "lfs-batch", "lfs-upload", "lfs-verify"))
    if made or which == signal.SIGTERM:
        assert (output / "hfexport.json").exists()
    assert which == signal.SIGKILL or not list(output.glob(".hfexport-*"))


@pytest.mark.parametrize(("to", "options"), [("org/new", ()), ("org/tiny", ("--branch", "exports"))])
@pytest.mark.parametrize("call", ["lfs-upload", "commit"])
def test_what_was_made_for_a_push_goes_again_when_it_is_ended(
    hub: LocalHub, ended: Ended, run: Callable[..., Finished], to: str, options: tuple[str, ...], call: str
) -> None:
    refs = dict(hub.repositories["org/tiny"].refs)
    ended.at(call, signal.SIGTERM, *options, to=to)
    assert hub.repositories.keys() == {"org/tiny"}
    assert hub.repositories["org/tiny"].refs == refs
    hub.faults.clear()
    ended.at("commit", signal.SIGKILL, *options, to=to)  # nobody is left to remove anything: the next run fills it
    again = run(*MODEL, "--push-to-hub", to, *options, *QUICK, "--hub-token", TOKEN)
    assert again.exit_code == 0, again.said
    branch = "exports" if options else "main"
    assert "torchscript/model.pt" in hub.repositories[to].files(branch)
    assert len(hub.repositories[to].history(branch)) == 2


@pytest.mark.parametrize("which", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("create_pr", [False, True])
def test_ended_in_the_commit_it_is_complete_and_the_next_run_sees_it(
    hub: LocalHub, ended: Ended, run: Callable[..., Finished], which: signal.Signals, *, create_pr: bool
) -> None:
    options = ("--create-pr",) if create_pr else ()
    ended.at("commit", which, *options, done=True)
    repository = hub.repositories["org/tiny"]
    ref = "refs/pr/1" if create_pr else "main"
    manifest = json.loads(hub.read("org/tiny", "hfexport.json", ref))
    held = repository.files(ref)
    for file in (*manifest["files"], *(file for artifact in manifest["artifacts"] for file in artifact["files"])):
        assert held[file["path"]] == file["sha256"]
    again = run(*PUSH, *QUICK, "--hub-token", TOKEN, *options)
    assert again.exit_code == 0, again.said
    assert "nothing to do" in again.said
    assert len(repository.pull_requests) == int(create_pr)
    if create_pr:
        assert "revision='refs/pr/1'" in repository.pull_request(1).comments[0].content


def test_children_see_no_token(hub: LocalHub, environment: dict[str, str], tmp_path: Path) -> None:
    cold = {name: value for name, value in environment.items() if name != WARM_SERVERS}
    process = subprocess.Popen(
        [sys.executable, "-m", "hfexport", *PUSH, "--formats", "torchscript"],
        cwd=tmp_path,
        env={**cold, "INPUT_HUB-TOKEN": TOKEN, "HF_TOKEN": TOKEN},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    seen: set[int] = set()
    while process.poll() is None:
        for child in children_of(process.pid):
            try:
                command = Path(f"/proc/{child}/cmdline").read_bytes()
                variables = Path(f"/proc/{child}/environ").read_bytes()
            except OSError:
                continue
            if b"job.json" in command:  # it is the child by now, not the parent's copy any more
                assert TOKEN.encode() not in command + variables
                seen.add(child)
    assert process.returncode == 0
    assert len(seen) >= 2
