"""Every format goes one way: the table of formats, its back end, its artifacts' names in the manifest."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import get_args

import hfexport
from hfexport.backends.base import Backend
from hfexport.backends.formats import FORMATS
from hfexport.backends.onnx.backend import OnnxBackend
from hfexport.backends.torchscript.backend import TorchScriptBackend
from hfexport.manifest import model
from hfexport.run.formats import MAKERS


def test_the_tables_name_the_same_formats() -> None:
    assert tuple(FORMATS) == tuple(MAKERS) == get_args(model.Format)
    assert {known.name for known in FORMATS.values()} == set(FORMATS)
    assert {path.parent.name for path in (Path(hfexport.__file__).parent / "backends").glob("*/backend.py")} == set(
        FORMATS
    )


def test_back_ends_follow_the_protocol() -> None:
    made: list[Backend] = [OnnxBackend(), TorchScriptBackend()]
    assert [backend.format for backend in made] == ["onnx", "torchscript"]


def compared_formats(source: str) -> list[str]:
    """The formats that are named in comparisons."""
    return [
        value.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Compare)
        for value in (node.left, *node.comparators)
        if isinstance(value, ast.Constant) and value.value in FORMATS
    ]


def test_a_run_decides_nothing_by_the_name_of_a_format() -> None:
    assert compared_formats('if name == "neuron" or "onnx" in formats: pass') == ["neuron", "onnx"]
    for path in (Path(hfexport.__file__).parent / "run").rglob("*.py"):
        assert compared_formats(path.read_text(encoding="utf-8")) == [], path
