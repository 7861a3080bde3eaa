"""A Hub on this machine, and the real command line with nothing of this machine's own settings."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from hfexport._internal.forkserver import WARM_SERVERS
from hfexport.hub.client import configure_process
from hfexport.hub.credentials import TOKEN_VARIABLES
from local_hub.server import LocalHub, User
from tiny import make_checkpoint

TOKEN = "hf_ThisIsTheSecretThatMustNotShow"
READER = "hf_ReadsEverythingWritesNothing"


@dataclass(frozen=True)
class Finished:
    """A run of the command line that has ended."""

    exit_code: int
    stdout: str
    stderr: str
    folder: Path

    @property
    def said(self) -> str:
        return f"exit code {self.exit_code}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"


def job_environment(hub: LocalHub, folder: Path) -> dict[str, str]:
    """Return what the Actions runner sets for a job with `id-token: write`."""
    commands = folder / "commands"
    commands.mkdir(exist_ok=True)
    return {
        "GITHUB_ACTIONS": "true",
        "GITHUB_OUTPUT": str(commands / "output"),
        "GITHUB_STEP_SUMMARY": str(commands / "summary"),
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{hub.url}/actions/id-token",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "runner-secret",
    }


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT classifier with a tokenizer."""
    folder = tmp_path_factory.mktemp("model") / "checkpoint"
    return make_checkpoint(folder, "bert", "sequence-classification", tokenizer=True)


@pytest.fixture(scope="session")
def files(checkpoint: Path) -> dict[str, bytes]:
    """The files of the checkpoint, as a repository has them, with what an export must leave where it is."""
    return {
        **{path.name: path.read_bytes() for path in sorted(checkpoint.iterdir())},
        "README.md": b"---\nlicense: apache-2.0\n---\n# A model\n",
        "pytorch_model.bin": b"the same weights once more",
        "tf_model.h5": b"and once more",
        "onnx/model.onnx": b"an artifact of somebody else",
    }


@pytest.fixture
def hub(files: dict[str, bytes]) -> Iterator[LocalHub]:
    """A Hub with the tiny model `org/tiny`."""
    with LocalHub() as server:
        server.tokens = {TOKEN: User("org"), READER: User("reader", frozenset())}
        server.add("org/tiny", files)
        yield server


def hub_environment(hub: LocalHub, home: Path) -> dict[str, str]:
    """An environment in which the client finds the local Hub, and no token."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR", "OMP_NUM_THREADS") if name in os.environ}
    return {
        **kept,
        **{"HOME": str(home), "HF_HOME": str(home / "hf"), "HF_ENDPOINT": hub.url},
        **{"HF_HUB_DISABLE_XET": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    }


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The client in this process: time limits, a cache of its own, plain uploads, no stored login, and no pauses between attempts."""
    configure_process()
    impatient = SimpleNamespace(sleep=lambda _: None, time=time.time, monotonic=time.monotonic)
    monkeypatch.setattr("huggingface_hub.utils._http.time", impatient)
    monkeypatch.setattr("huggingface_hub.file_download.time", impatient)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    for name in TOKEN_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def environment(hub: LocalHub, warm: str, tmp_path: Path) -> dict[str, str]:
    """Environment of commands, which fork their exporting process from a server that has imported torch."""
    home = tmp_path / "home"
    home.mkdir()
    return {**hub_environment(hub, home), WARM_SERVERS: warm}


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Callable[..., Finished]:
    """Runs `hfexport` with options; keyword arguments are environment variables."""

    def run_cli(*arguments: str, **variables: str) -> Finished:
        folder = tmp_path / "work"
        folder.mkdir(exist_ok=True)
        done = subprocess.run(
            [sys.executable, "-m", "hfexport", *arguments],
            cwd=folder,
            env={**environment, **variables},
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return Finished(done.returncode, done.stdout, done.stderr, folder)

    return run_cli
