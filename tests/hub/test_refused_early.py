"""What is refused before a model is run: tokens that are missing or not granted, and published exports that are none."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hub.conftest import Finished, hub_environment, job_environment
from local_hub.server import LocalHub
from local_hub.store import Publisher
from manifests import failed_manifest, full_manifest

MODEL = ("--model", "org/tiny")
PUSH = (*MODEL, "--push-to-hub", "true")


@pytest.fixture
def run(hub: LocalHub, tmp_path: Path) -> Callable[..., Finished]:
    """Runs `hfexport` with options, without a server that has imported torch; keyword arguments are environment variables."""

    def run_cli(*arguments: str, **variables: str) -> Finished:
        command = [sys.executable, "-m", "hfexport", *arguments]
        env = {**hub_environment(hub, tmp_path), **variables}
        done = subprocess.run(command, cwd=tmp_path, env=env, check=False, capture_output=True, text=True, timeout=300)
        return Finished(done.returncode, done.stdout, done.stderr, tmp_path)

    return run_cli


def test_no_token_to_publish_with(hub: LocalHub, run: Callable[..., Finished]) -> None:
    done = run(*PUSH)
    assert done.exit_code == 7, done.said
    assert "push-to-hub is 'org/tiny', but there is no token to publish with" in done.stderr
    assert "Give hub-token or HF_TOKEN" in done.stderr


def test_a_workflow_that_is_no_publisher(hub: LocalHub, run: Callable[..., Finished], tmp_path: Path) -> None:
    hub.publishers = [Publisher("org/another-workflow", "org/tiny")]
    done = run(*PUSH, **job_environment(hub, tmp_path))
    assert done.exit_code == 7, done.said
    assert "could not get a token as trusted publisher of org/tiny: " in done.said
    assert "no trusted publisher of org/tiny fits this workflow" in done.said
    shown = [line for line in done.said.splitlines() if not line.startswith("::add-mask::")]
    assert not any("runner-secret" in line or "id-token:" in line for line in shown)


def test_a_resource_to_read_that_is_not_granted(hub: LocalHub, run: Callable[..., Finished], tmp_path: Path) -> None:
    done = run(*MODEL, **job_environment(hub, tmp_path), HF_OIDC_RESOURCE="org/private")
    assert done.exit_code == 3, done.said
    assert "could not get a token as trusted publisher of org/private: " in done.said
    assert "Traceback" not in done.said


def test_a_repository_without_an_export(run: Callable[..., Finished]) -> None:
    done = run("verify", "org/tiny", "--subfolder", "fp16")
    assert done.exit_code == 3, done.said
    assert "org/tiny: has no fp16/hfexport.json at " in done.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "hfexport.json: is no manifest of hfexport: "),
        (json.dumps(failed_manifest()).encode(), "hfexport.json: its verdict is failed"),
        (
            json.dumps(full_manifest()).encode(),
            "onnx/model.onnx: is not the file that the manifest describes\ntorchscript/model.pt: is missing",
        ),
    ],
    ids=["broken", "failed", "changed"],
)
def test_a_published_export_that_is_not_whole(
    content: bytes, said: str, hub: LocalHub, run: Callable[..., Finished]
) -> None:
    hub.add("org/exported", {"hfexport.json": content, "onnx/model.onnx": b"another"})
    done = run("verify", "org/exported")
    assert done.exit_code == 6, done.said
    assert said in done.stderr
    assert "Traceback" not in done.said
