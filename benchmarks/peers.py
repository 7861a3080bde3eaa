"""The exporters that are compared: what each one's environment is, and how it is called for a case."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cases import Case

__all__ = ["CONTENDERS", "REFERENCE", "Contender", "Places"]

ROOT: Final = Path(__file__).resolve().parent.parent
OPTIMUM: Final = ROOT / ".venv-optimum" / "bin"
TRANSFORMERS: Final = ROOT / ".venv-transformers" / "bin"
REFERENCE: Final = "optimum-cli"
"""The contender that ratios are taken to."""

_VERSIONS: Final = """
import json, platform, sys
from importlib.metadata import PackageNotFoundError, version
found = {"python": platform.python_version()}
for name in sys.argv[1:]:
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Places:
    """Folders of one run.

    Attributes:
        checkpoint: checkpoint to export.
        output: folder to write to; absent before the run.
        cache: folder of graph templates, which outlives the run.
    """

    checkpoint: Path
    output: Path
    cache: Path


@dataclass(frozen=True)
class Contender:
    """One exporter.

    Attributes:
        name: name in `--contenders` and in the results.
        validates: what it proves about its artifact, for the document.
        python: interpreter of its environment.
        packages: packages whose versions the document states.
        command: the command for a case.
        pickled: whether it reads only pytorch_model.bin.
        primed: whether one run is needed to fill its cache.
    """

    name: str
    validates: str
    python: Path
    packages: tuple[str, ...]
    command: Callable[[Case, Places], list[str]]
    pickled: bool = False
    primed: bool = False

    def missing(self) -> str | None:
        """Say what is not installed, or return `None`."""
        if self.python.exists():
            return None
        return f"its environment {self.python.parent.parent.name} is not installed; `make bench` installs it where it can be"

    def versions(self) -> dict[str, str]:
        """Return the versions of Python and `packages`, read in its own environment."""
        command = [str(self.python), "-c", _VERSIONS, *self.packages]
        found: dict[str, str] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        return found


def _hfexport(case: Case, places: Places) -> list[str]:
    command = [sys.executable, "-m", "hfexport", "--model", str(places.checkpoint), "--formats", "onnx"]
    return [*command, "--task", case.feature, "--output", str(places.output)]


def _hfexport_warm(case: Case, places: Places) -> list[str]:
    return [*_hfexport(case, places), "--cache", str(places.cache)]


def _optimum(case: Case, places: Places) -> list[str]:
    command = [str(OPTIMUM / "optimum-cli"), "export", "onnx", "--model", str(places.checkpoint)]
    return [*command, "--task", case.optimum_task, str(places.output)]


def _transformers_onnx(case: Case, places: Places) -> list[str]:
    command = [str(TRANSFORMERS / "python"), "-m", "transformers.onnx", "--model", str(places.checkpoint)]
    opset = [] if case.opset is None else ["--opset", str(case.opset)]
    return [*command, "--feature", case.feature, *opset, str(places.output)]


def _exporters(case: Case, places: Places) -> list[str]:
    worker = Path(__file__).with_name("exporters_worker.py")
    kind = "generates" if case.generates else "forward"
    return [sys.executable, str(worker), str(places.checkpoint), str(places.output), case.feature, kind]


_OURS: Final = ("torch", "transformers", "onnx", "onnxruntime", "onnxscript")

CONTENDERS: Final = (
    Contender(
        "hfexport cold",
        "at shapes and paddings that export did not see, in fresh processes",
        Path(sys.executable),
        _OURS,
        _hfexport,
    ),
    Contender("hfexport warm", "the same", Path(sys.executable), _OURS, _hfexport_warm, primed=True),
    Contender(
        REFERENCE,
        "at the traced shape, in the exporting process",
        OPTIMUM / "python",
        ("optimum-onnx", "optimum", "torch", "transformers", "onnx", "onnxruntime"),
        _optimum,
    ),
    Contender(
        "transformers.onnx",
        "at one batch and sequence more, in the exporting process",
        TRANSFORMERS / "python",
        ("torch", "transformers", "onnx", "onnxruntime"),
        _transformers_onnx,
        pickled=True,
    ),
    Contender("transformers.exporters", "not at all", Path(sys.executable), _OURS, _exporters),
)
