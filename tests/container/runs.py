"""Runs of the image: as the Actions runner starts a Docker action, and by hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import yaml
from docker.models.containers import Container
from docker.models.images import Image

ROOT = Path(__file__).resolve().parent.parent.parent
RUN_TIMEOUT_S = 600

JUNK_PATH = "/opt/hostedtoolcache/Python/3.9.1/x64/bin:/home/runner/.local/bin:/nonexistent"
"""The runner's PATH, which reaches Docker actions although its folders do not."""

SHADOWING = ("torch.py", "json.py", "typing.py", "hfexport.py", "sitecustomize.py")
"""Files of a workspace that would be imported instead of the real modules if Python looked there."""


@dataclass(frozen=True)
class Finished:
    """A run that has ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        """Both streams, for messages of failing tests."""
        return f"exit code {self.exit_code}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"


@dataclass(frozen=True)
class Workspace:
    """Folders of the host that a container sees: the workspace, a home and the runner's command files."""

    repository: Path
    home: Path
    commands: Path
    temporary: Path

    @classmethod
    def make(cls, folder: Path, checkpoint: Path) -> Workspace:
        """Lay it out under `folder`, with `checkpoint` in the workspace."""
        made = cls(*(folder / name for name in ("repository", "home", "commands", "temporary")))
        for path in (made.repository, made.home, made.commands, made.temporary):
            path.mkdir()
        shutil.copytree(checkpoint, made.repository / "checkpoint")
        for name in SHADOWING:
            (made.repository / name).write_text(f"raise SystemExit('{name} of the workspace was imported')\n")
        for name in ("output", "summary", "env", "path", "state"):
            (made.commands / name).touch()
        return made

    @property
    def manifest(self) -> dict[str, Any]:
        """What the run wrote to hfexport.json."""
        return dict(json.loads((self.repository / "hfexport-out" / "hfexport.json").read_text(encoding="utf-8")))

    @property
    def summary(self) -> str:
        """The job summary."""
        return (self.commands / "summary").read_text(encoding="utf-8")

    def written(self) -> set[str]:
        """Files in the output folder, and whatever is left of staging, relative to the workspace."""
        before = {"checkpoint", *SHADOWING}
        files = (path.relative_to(self.repository) for path in self.repository.rglob("*") if path.is_file())
        return {str(path) for path in files if path.parts[0] not in before}

    def outputs(self) -> tuple[dict[str, str], list[str]]:
        """GITHUB_OUTPUT as the runner reads it: values by name, and the delimiters that fenced them."""
        values: dict[str, str] = {}
        delimiters: list[str] = []
        lines = iter((self.commands / "output").read_text(encoding="utf-8").splitlines())
        for line in lines:
            name, fence, delimiter = line.partition("<<")
            assert fence and delimiter, f"not `name<<delimiter`: {line!r}"
            value: list[str] = []
            for inner in lines:
                if inner == delimiter:
                    break
                value.append(inner)
            else:
                raise AssertionError(f"{name} is not closed by {delimiter}")
            values[name] = "\n".join(value)
            delimiters.append(delimiter)
        return values, delimiters


def as_action(engine: docker.DockerClient, image: Image, workspace: Workspace, **inputs: str) -> Finished:
    """Start the image as the runner does: every input of action.yml as INPUT_*, its files, its PATH; no network."""
    container = create(engine, image, workspace, environment=action_environment(inputs))
    return finish(container)


def action_environment(inputs: Mapping[str, str]) -> dict[str, str]:
    """What the runner sets. `inputs` by name, with underscores for hyphens; the others have action.yml's defaults."""
    declared = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))["inputs"]
    given = {name.replace("_", "-"): value for name, value in inputs.items()}
    assert given.keys() <= declared.keys(), f"action.yml has no input {sorted(given.keys() - declared.keys())}"
    values = {name: given.get(name, str(part.get("default", ""))) for name, part in declared.items()}
    return {
        **{f"INPUT_{name.upper().replace(' ', '_')}": value for name, value in values.items()},
        "CI": "true",
        "HOME": "/github/home",
        "PATH": JUNK_PATH,
        "PYTHONPATH": "/github/workspace:/opt/hostedtoolcache/nothing",
        "PYTHONHOME": "/nonexistent",
        "GITHUB_ACTIONS": "true",
        "GITHUB_ACTION": "__org_hfexport-action",
        "GITHUB_ACTOR": "octocat",
        "GITHUB_EVENT_NAME": "push",
        "GITHUB_JOB": "export",
        "GITHUB_REPOSITORY": "org/model",
        "GITHUB_RUN_ID": "1",
        "GITHUB_SHA": "0" * 40,
        "GITHUB_WORKSPACE": "/github/workspace",
        "GITHUB_OUTPUT": "/github/file_commands/output",
        "GITHUB_STEP_SUMMARY": "/github/file_commands/summary",
        "GITHUB_ENV": "/github/file_commands/env",
        "GITHUB_PATH": "/github/file_commands/path",
        "GITHUB_STATE": "/github/file_commands/state",
        "RUNNER_ARCH": "X64",
        "RUNNER_OS": "Linux",
        "RUNNER_TEMP": "/github/runner_temp",
        "RUNNER_TOOL_CACHE": "/opt/hostedtoolcache",
    }


def create(
    engine: docker.DockerClient,
    image: Image,
    workspace: Workspace,
    *,
    environment: Mapping[str, str],
    network_mode: str = "none",
) -> Container:
    """A container with the runner's mounts and working directory, not started."""
    mounts = {
        workspace.repository: "/github/workspace",
        workspace.home: "/github/home",
        workspace.commands: "/github/file_commands",
        workspace.temporary: "/github/runner_temp",
    }
    return engine.containers.create(
        image,
        environment=dict(environment),
        network_mode=network_mode,
        volumes={str(host): {"bind": inside, "mode": "rw"} for host, inside in mounts.items()},
        working_dir="/github/workspace",
    )


def by_hand(
    engine: docker.DockerClient,
    image: Image,
    repository: Path,
    arguments: Sequence[str],
    *,
    entrypoint: Sequence[str] | None = None,
) -> Finished:
    """`docker run -v repository:/github/workspace -w /github/workspace image arguments`, without a network."""
    container = engine.containers.create(
        image,
        list(arguments),
        entrypoint=None if entrypoint is None else list(entrypoint),
        network_mode="none",
        volumes={str(repository): {"bind": "/github/workspace", "mode": "rw"}},
        working_dir="/github/workspace",
    )
    return finish(container)


def finish(container: Container) -> Finished:
    """Run it to its end, and remove it."""
    try:
        container.start()
        exit_code = container.wait(timeout=RUN_TIMEOUT_S)["StatusCode"]
        stdout = container.logs(stdout=True, stderr=False).decode()
        stderr = container.logs(stdout=False, stderr=True).decode()
    finally:
        container.remove(force=True)
    return Finished(exit_code, stdout, stderr)
