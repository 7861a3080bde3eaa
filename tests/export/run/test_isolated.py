"""Code that is not hfexport's runs in a child that has no token, no network and no way to the user's own files.

All through the real command line, in a process of its own: what the parent has is what an attacker looks for.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hfexport._internal.forkserver import FORK_SERVERS
from tiny import make_checkpoint

TOKEN = "hf_" + "thisIsTheSecretOfTheUser"
OTHER = "theJobsIdentityToken"

SPY = '''
import ctypes, glob, json, os, pwd, socket
from pathlib import Path

def look():
    """Everything that can be read of what the user has."""
    found, errors = [], []

    def attempt(name, read):
        try:
            found.append(f"{name}: {read()!r}")
        except Exception as error:
            errors.append(f"{name}: {type(error).__name__}: {error}")

    attempt("environment", lambda: dict(os.environ))
    me = os.getpid()
    for folder in glob.glob("/proc/[0-9]*"):
        pid = int(Path(folder).name)
        attempt(f"{pid} environ", lambda: Path(folder, "environ").read_bytes())
        attempt(f"{pid} cmdline", lambda: Path(folder, "cmdline").read_bytes())
        if pid != me:
            attempt(f"{pid} memory", lambda: memory(folder))
    homes = {os.environ.get("HOME", ""), pwd.getpwuid(os.getuid()).pw_dir, "HOMES"}
    for home in homes:
        for name in (".cache/huggingface/token", ".cache/huggingface/stored_tokens", ".netrc", ".ssh/id_rsa"):
            attempt(f"{home} {name}", lambda: Path(home, name).read_text())
    attempt("own memory", lambda: memory("/proc/self"))
    attempt("network", lambda: socket.create_connection(("127.0.0.1", PORT), 2).recv(100))
    attempt("writing", lambda: Path("HOMES", "written").write_text("x"))
    attempt("killing", lambda: os.kill(PARENT, 0))
    Path(os.environ["TMPDIR"], "..", "..", "found.json").resolve().write_text(json.dumps([found, errors]))

def memory(folder):
    """Whether a secret is in a process's memory. What is looked for is reversed, so that looking does not put it there."""
    hits = 0
    with open(f"{folder}/maps") as maps, open(f"{folder}/mem", "rb", 0) as content:
        for line in maps:
            span, access = line.split()[:2]
            start, end = (int(edge, 16) for edge in span.split("-"))
            if access.startswith("rw") and end - start < 2**25:
                content.seek(start)
                part = content.read(end - start)[::-1]
                hits += sum(part.count(word) for word in REVERSED)
    return f"{hits} secrets" if hits else "nothing"

look()
'''

REMOTE = """
from transformers import BertConfig, BertForSequenceClassification

class ParrotConfig(BertConfig):
    model_type = "parrot"

class ParrotForSequenceClassification(BertForSequenceClassification):
    config_class = ParrotConfig
"""

OWN = """
from hfexport.onnx import OnnxConfig

class Parrot(OnnxConfig):
    @property
    def inputs(self):
        axes = {0: "batch", 1: "sequence"}
        return {"input_ids": axes, "attention_mask": axes}
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model") / "checkpoint", "bert", "sequence-classification")


def remote(plain: Path, folder: Path, code: str) -> Path:
    """A copy of the checkpoint whose class is code beside it."""
    shutil.copytree(plain, folder)
    (folder / "modeling_parrot.py").write_text(REMOTE + code)
    config = json.loads((folder / "config.json").read_text())
    names = {
        "AutoConfig": "modeling_parrot.ParrotConfig",
        "AutoModelForSequenceClassification": "modeling_parrot.ParrotForSequenceClassification",
    }
    changes = {"model_type": "parrot", "architectures": ["ParrotForSequenceClassification"], "auto_map": names}
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


def environment(home: Path, **more: str) -> dict[str, str]:
    """That of a job with secrets, and a user who is logged in."""
    cache = home / ".cache" / "huggingface"
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "token").write_text(TOKEN)
    (home / ".netrc").write_text(f"machine huggingface.co login user password {TOKEN}")
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    secrets = {
        "HF_TOKEN": TOKEN,
        "INPUT_HUB-TOKEN": TOKEN,
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": OTHER,
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"https://example.org/{OTHER}",
    }
    return {**kept, **secrets, "HOME": str(home), "OMP_NUM_THREADS": "1", **more}


def hfexport(*options: str | Path, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    assert FORK_SERVERS not in env
    command = [sys.executable, "-m", "hfexport", *map(str, options)]
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False)


def stolen(tmp_path: Path, *options: str | Path) -> tuple[list[str], list[str], dict[str, Any]]:
    """What the spy found, what it was refused, and the manifest."""
    quick = ("--formats", "onnx", "--validate", "off", "--output", "out", "--hub-token", TOKEN)
    command = [sys.executable, "-m", "hfexport", *map(str, options), *quick]
    log, reports = tmp_path / "log.txt", []
    with log.open("w") as said:
        process = subprocess.Popen(command, env=environment(tmp_path / "home"), cwd=tmp_path, stdout=said, stderr=said)
        while process.poll() is None:  # what the spy can write to is removed afterwards
            for path in tmp_path.glob("out/.hfexport-*/found.json"):
                with contextlib.suppress(OSError, ValueError):
                    reports.append(json.loads(path.read_text()))
            time.sleep(0.05)
    assert process.returncode == 0, log.read_text()
    assert TOKEN not in log.read_text()
    assert reports
    found, errors = reports[-1]
    return found, errors, json.loads((tmp_path / "out" / "hfexport.json").read_text())


def spy(tmp_path: Path) -> str:
    words = repr([TOKEN[::-1].encode(), OTHER[::-1].encode()])
    code = SPY.replace("REVERSED", words).replace("HOMES", str(tmp_path / "home"))
    return code.replace("PORT", "9").replace("PARENT", "os.getppid()")


def hold(found: list[str], errors: list[str], manifest: dict[str, Any], tmp_path: Path) -> None:
    shown = [line for line in found if TOKEN in line or OTHER in line or "secrets" in line]
    assert shown == []
    assert any(line.startswith("environment") and "HOME" in line for line in found)  # it did look
    assert any(line.startswith("own memory: 'nothing") for line in found)
    if manifest["isolation"]["files"] == "denied":
        assert any("huggingface/token" in line and "Permission" in line for line in errors)
        assert not (tmp_path / "home" / "written").exists()
        assert any(line.startswith("killing: PermissionError") for line in errors)
    assert any(line.startswith("network: ") for line in errors)
    assert any("memory: PermissionError" in line for line in errors)


def test_code_of_the_checkpoint_finds_no_secret(plain: Path, tmp_path: Path) -> None:
    folder = remote(plain, tmp_path / "checkpoint", spy(tmp_path))
    found, errors, manifest = stolen(tmp_path, "--model", folder, "--trust-remote-code")
    hold(found, errors, manifest, tmp_path)


@pytest.mark.thorough
def test_code_of_the_users_own_class_finds_no_secret(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN + spy(tmp_path))
    hold(*stolen(tmp_path, "--model", plain, "--export-config", "mine.py:Parrot"), tmp_path)


def test_a_link_that_foreign_code_leaves_is_not_published(plain: Path, tmp_path: Path) -> None:
    code = """
import os
from pathlib import Path

def init(self, *values, **names):
    ready = Path(os.environ["TMPDIR"], "..", "..", "ready").resolve()
    if ready.is_dir() and not (ready / "token.txt").is_symlink():
        (ready / "token.txt").symlink_to("/etc/passwd")
    BertForSequenceClassification.__init__(self, *values, **names)

ParrotForSequenceClassification.__init__ = init
"""
    folder = remote(plain, tmp_path / "checkpoint", code)
    options = (
        "--model",
        folder,
        "--trust-remote-code",
        "--formats",
        "torchscript",
        "--validate",
        "off",
        "--output",
        "out",
    )
    done = hfexport(*options, env=environment(tmp_path / "home"), cwd=tmp_path)
    assert done.returncode == 5
    assert "token.txt" in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["hfexport.json"]


@pytest.mark.parametrize(
    ("ending", "code", "said"),
    [
        ("os.kill(os.getpid(), 9)", 5, "memory ran out"),
        pytest.param("os.abort()", 5, "SIGABRT", marks=pytest.mark.thorough),
    ],
    ids=["killed", "aborted"],
)
def test_the_parent_outlives_the_exporting_process(
    plain: Path, tmp_path: Path, ending: str, code: int, said: str
) -> None:
    folder = remote(plain, tmp_path / "checkpoint", f"\nimport os\n{ending}\n")
    done = hfexport(
        *("--model", folder, "--trust-remote-code", "--output", "out"), env=environment(tmp_path / "home"), cwd=tmp_path
    )
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "out" / "hfexport.json").read_text())["error"]["exit_code"] == code


def test_every_run_of_the_command_line_is_isolated_and_verified_so(plain: Path, tmp_path: Path) -> None:
    env = environment(tmp_path / "home")
    done = hfexport("--model", plain, "--output", "out", "--formats", "torchscript", env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "out" / "hfexport.json").read_text())
    assert set(manifest["isolation"]) == {"network", "files", "processes"}
    assert [stage["name"] for stage in manifest["stages"]][-1] == "Files"
    assert "Export to torchscript: " in done.stderr
    verified = hfexport("verify", "out", "--model", plain, env=env, cwd=tmp_path)
    assert verified.returncode == 0, verified.stderr
    assert "answers as the model does" in verified.stderr


def test_interrupting_ends_the_exporting_process_too(plain: Path, tmp_path: Path) -> None:
    folder = remote(plain, tmp_path / "checkpoint", "\nimport time\nprint('here', flush=True)\ntime.sleep(600)\n")
    command = [sys.executable, "-m", "hfexport", "--model", str(folder), "--trust-remote-code", "--output", "out"]
    env = environment(tmp_path / "home")
    with subprocess.Popen(command, env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        while not any("here" in path.read_text() for path in tmp_path.glob("out/.hfexport-*/child/output.log")):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
    marks = [Path(folder, "cmdline") for folder in Path("/proc").glob("[0-9]*")]
    assert not [mark for mark in marks if str(tmp_path).encode() in _read(mark)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
