"""The command line with the Neuron worker's own interpreters: real torch and transformers 4, stand-ins for the SDKs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hfexport._internal.forkserver import FORK_SERVERS, fork_servers
from hfexport._internal.workers import child_environment
from hfexport.cli.main import main
from hfexport.manifest.entries import check_manifest
from tiny import make_checkpoint

ROOT = Path(__file__).resolve().parent.parent.parent

WITH_DEVICE = "--stand-in-device"
"""Among the compiler's arguments: the stand-in's run time then takes this machine for one with a device."""


@pytest.fixture(scope="session", autouse=True)
def _light_children() -> Iterator[None]:
    """Children of today's torch are forked, and none starts threads for its tiny model, which would only wait."""
    threads = os.environ.get("OMP_NUM_THREADS")
    with fork_servers(child_environment(os.environ)) as folder:
        os.environ |= {FORK_SERVERS: folder, "OMP_NUM_THREADS": "1"}
        yield
        del os.environ[FORK_SERVERS], os.environ["OMP_NUM_THREADS"]
        if threads is not None:
            os.environ["OMP_NUM_THREADS"] = threads


def made_python(environment: str) -> Path:
    """The Python of an environment that `make neuron-test` makes."""
    return require(ROOT / environment / "bin" / "python")


def require(path: Path) -> Path:
    """What `make neuron-test` makes."""
    if not path.exists():
        message = f"there is no {path}: `make neuron-test` makes it"
        if os.environ.get("HFEXPORT_REQUIRE_NEURON") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return path


@dataclass(frozen=True)
class Exported:
    """A run that has ended: its exit code, its manifest, what it printed, and its folder."""

    code: int
    manifest: dict[str, Any]
    said: str
    folder: Path

    @property
    def artifact(self) -> dict[str, Any]:
        (artifact,) = self.manifest["artifacts"]
        return artifact

    @property
    def checks(self) -> dict[str, tuple[str, str]]:
        return {check["name"]: (check["verdict"], check["reason"]) for check in self.artifact["validation"]["checks"]}

    @property
    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())


@dataclass(frozen=True)
class Exporter:
    """Runs `hfexport --formats neuron` on tiny checkpoints."""

    python: Path
    folder: Path
    capfd: pytest.CaptureFixture[str]
    target: str = "inf1"

    def checkpoint(self, model_type: str, task: str, **changes: Any) -> Path:
        return make_checkpoint(self.folder / "checkpoint", model_type, task, **changes)

    def run(self, checkpoint: Path, *options: str, stand_in: str = "") -> Exported:
        """Run the command line; `stand_in` is what the compiler is told."""
        output = self.folder / "out"
        argv = ["--model", str(checkpoint), "--formats", "neuron", "--output", str(output)]
        argv += ["--neuron-target", self.target, "--neuron-python", str(self.python)]
        argv += ["--sequence-length", "24", *options]
        if stand_in:
            argv.append(f"--neuron-compiler-args={stand_in}")
        code = main(argv)
        printed = self.capfd.readouterr()
        manifest = json.loads((output / "hfexport.json").read_text(encoding="utf-8"))
        check_manifest(manifest)
        return Exported(code, manifest, printed.out + printed.err, output)


@pytest.fixture
def exporter_for(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[[str], Exporter]:
    """Gives the exporter for a target."""
    environments = {"inf1": ".venv-neuron", "inf2": ".venv-neuronx"}
    return lambda target: Exporter(made_python(environments[target]), tmp_path, capfd, target)


@pytest.fixture
def exporter(exporter_for: Callable[[str], Exporter]) -> Exporter:
    return exporter_for("inf1")


@pytest.fixture
def exporter_inf2(exporter_for: Callable[[str], Exporter]) -> Exporter:
    return exporter_for("inf2")
