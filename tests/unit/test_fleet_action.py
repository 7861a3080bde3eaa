"""The action that puts `hfexport` on PATH for the jobs of the fleet's workflow, with a stand-in for docker."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "ghcr.io/org/hfexport-action@sha256:" + "0" * 64


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of what the script reads, and a `docker` that prints its arguments and the token that it would pass on."""
    for name in (".github/actions/hfexport/install.sh", "slim/action.yml"):
        (tmp_path / "repository" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "repository" / name)
    (tmp_path / "bin").mkdir()
    docker = tmp_path / "bin" / "docker"
    docker.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\necho "token: $HF_TOKEN"\n', encoding="utf-8")
    docker.chmod(0o755)
    return tmp_path / "repository"


def _environment(folder: Path, **more: str) -> dict[str, str]:
    return {
        **{"PATH": f"{folder}/bin:/usr/bin:/bin", "RUNNER_TEMP": str(folder), "GITHUB_PATH": str(folder / "path")},
        **{"GITHUB_WORKSPACE": str(folder / "work"), **more},
    }


def _install(repository: Path) -> str:
    script = repository / ".github" / "actions" / "hfexport" / "install.sh"
    done = subprocess.run(
        ["bash", str(script)], env=_environment(repository.parent), capture_output=True, text=True, check=True
    )
    assert (repository.parent / "path").read_text().strip() == str(repository.parent / "hfexport-bin")
    return done.stderr


def test_the_released_image_runs_with_the_workspace_and_no_secret_on_its_command_line(repository: Path) -> None:
    action = repository / "slim" / "action.yml"
    text = action.read_text(encoding="utf-8")
    start = text.index("  image: ../Dockerfile")
    action.write_text(f"{text[:start]}  image: docker://{IMAGE}\n", encoding="utf-8")
    assert _install(repository) == ""
    folder = repository.parent
    output = str(folder / "output")
    done = subprocess.run(
        [str(folder / "hfexport-bin" / "hfexport"), "plan", "my models.yaml", "--matrix"],
        env=_environment(folder, HF_TOKEN="hf_secret", GITHUB_OUTPUT=output, UNRELATED="x"),
        capture_output=True,
        text=True,
        check=True,
    )
    *words, token = done.stdout.splitlines()
    assert words[-4:] == [IMAGE, "plan", "my models.yaml", "--matrix"]
    assert f"{folder}/work:/github/workspace" in words
    assert f"{output}:{output}" in words
    assert [word for word in words if "secret" in word] == []
    assert token == "token: hf_secret"
    assert "HF_TOKEN" in words
    assert "UNRELATED" not in words


def test_before_a_release_the_image_is_built(repository: Path) -> None:
    said = _install(repository)
    assert said.splitlines()[:4] == ["build", "--quiet", "--tag", "hfexport:local"]
