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
    ("errors",),
    ("_internal", "export_config"),
    ("checkpoint", "runtime"),
    ("modeling",),
    ("backends",),
    ("validation",),
    ("manifest",),
    ("hub",),
    ("run",),
    ("cli", "onnx", "torchscript"),
    ("__main__",),
)
"""The rooms of the package, lowest first. A module imports from its own room and from lower layers."""

RANK = {room: rank for rank, layer in enumerate(LAYERS) for room in layer}


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def _imported_rooms(path: Path) -> set[str]:
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
    room = _room(path)
    assert room in RANK, f"{room} has no layer: give it one in LAYERS"
    upward = {other for other in _imported_rooms(path) if other != room and RANK[other] >= RANK[room]}
    assert not upward, f"{room} must not import {', '.join(sorted(upward))}"


@pytest.mark.parametrize(
    "code", ["import hfexport.cli.main", "import hfexport.run.pipeline", "import hfexport.hub.publish"]
)
def test_importing_loads_no_torch(code: str) -> None:
    heavy = ("torch", "transformers", "onnx", "onnxruntime", "numpy")
    program = f"import sys\n{code}\nprint([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_reference_is_started_before_torch_is_imported() -> None:
    program = (
        "import sys\n"
        "import hfexport.run.isolated, hfexport.validation.reference.start\n"
        "print([name for name in ('torch', 'transformers', 'onnx', 'onnxruntime') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_back_ends_know_nothing_of_inputs_console_or_publishing() -> None:
    for path in (PACKAGE / "backends").rglob("*.py"):
        assert not _imported_rooms(path) & {"run", "hub", "manifest", "cli"}


def test_the_package_has_few_rooms_and_small_modules() -> None:
    assert len(RANK) - 1 <= 14, "put a new concept into the room that it belongs to"
    assert len(LAYERS) - 1 <= 10
    long = {str(path.relative_to(PACKAGE)) for path in MODULES if len(path.read_text().splitlines()) > 400}
    assert not long, f"split {', '.join(sorted(long))}: look for the concept that wants its own name"
