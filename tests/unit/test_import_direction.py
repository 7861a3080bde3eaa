"""Imports point one way, and looking at hfexport costs no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hfexport

PACKAGE = Path(hfexport.__file__).parent

LAYERS = (
    ("errors", "process"),
    ("forkserver",),
    ("tasks", "observer", "output", "hub", "credentials"),
    ("stages",),
    ("export_config", "workers"),
    ("inputs", "console", "architectures", "probes", "checkpoint"),
    ("building",),
    ("models", "parts", "pooling", "runtime"),
    ("interface",),
    ("conversion",),
    ("backends",),
    ("validation",),
    ("manifest",),
    ("report",),
    ("neuron",),
    ("publish",),
    ("selection", "exporting"),
    ("pipeline",),
    ("verify",),
    ("cli", "onnx", "torchscript"),
    ("__main__",),
)
"""Each concept of the package, lowest first. A module may import from its own layer and from lower ones."""

RANK = {concept: rank for rank, layer in enumerate(LAYERS) for concept in layer}


def _concept(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def _imported_concepts(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        for module in modules:
            parts = module.split(".")
            if parts[0] == "hfexport" and len(parts) > 1 and parts[1] in RANK:
                found.add(parts[1])
    return found


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.name != "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    concept = _concept(path)
    assert concept in RANK, f"{concept} has no layer: give it one in LAYERS"
    upward = {other for other in _imported_concepts(path) if RANK[other] > RANK[concept]}
    assert not upward, f"{concept} must not import {', '.join(sorted(upward))}"


@pytest.mark.parametrize("code", ["import hfexport.cli", "import hfexport.pipeline", "import hfexport.publish"])
def test_importing_loads_no_torch(code: str) -> None:
    heavy = ("torch", "transformers", "onnx", "onnxruntime", "numpy")
    program = f"import sys\n{code}\nprint([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_back_ends_know_nothing_of_inputs_console_or_publishing() -> None:
    for path in (PACKAGE / "backends").rglob("*.py"):
        assert not _imported_concepts(path) & {"inputs", "console", "observer", "report", "pipeline", "cli"}
