"""Tokens that are missing, and workflows that the Hub does not trust: one error, before anything is exported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hub.conftest import Finished, hub_environment
from local_hub.server import LocalHub
from local_hub.store import Publisher

MODEL = ("--model", "org/tiny")
PUSH = (*MODEL, "--push-to-hub", "true")


@pytest.fixture
def run(hub: LocalHub, tmp_path: Path) -> Callable[..., Finished]:
    """Runs `hfexport` with options; keyword arguments are environment variables. It ends before it exports."""

    def run_cli(*arguments: str, **variables: str) -> Finished:
        command = [sys.executable, "-m", "hfexport", *arguments]
        env = {**hub_environment(hub, tmp_path), **variables}
        done = subprocess.run(command, cwd=tmp_path, env=env, check=False, capture_output=True, text=True, timeout=300)
        return Finished(done.returncode, done.stdout, done.stderr, tmp_path)

    return run_cli


@pytest.fixture
def job(hub: LocalHub, tmp_path: Path) -> dict[str, str]:
    """What the runner sets for a job with `id-token: write`."""
    return {
        "GITHUB_ACTIONS": "true",
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{hub.url}/actions/id-token",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "runner-secret",
    }


def test_no_token_to_publish_with(hub: LocalHub, run: Callable[..., Finished]) -> None:
    done = run(*PUSH)
    assert done.exit_code == 7, done.said
    assert "push-to-hub is 'org/tiny', but there is no token to publish with" in done.stderr
    assert "Give hub-token or HF_TOKEN" in done.stderr


def test_a_workflow_that_is_no_publisher(hub: LocalHub, run: Callable[..., Finished], job: dict[str, str]) -> None:
    hub.publishers = [Publisher("org/another-workflow", "org/tiny")]
    done = run(*PUSH, **job)
    assert done.exit_code == 7, done.said
    assert "could not get a token as trusted publisher of org/tiny: " in done.said
    assert "no trusted publisher of org/tiny fits this workflow" in done.said
    shown = [line for line in done.said.splitlines() if not line.startswith("::add-mask::")]
    assert not any("runner-secret" in line or "id-token:" in line for line in shown)


def test_a_resource_to_read_that_is_not_granted(
    hub: LocalHub, run: Callable[..., Finished], job: dict[str, str]
) -> None:
    done = run(*MODEL, **job, HF_OIDC_RESOURCE="org/private")
    assert done.exit_code == 3, done.said
    assert "could not get a token as trusted publisher of org/private: " in done.said
    assert "Traceback" not in done.said
