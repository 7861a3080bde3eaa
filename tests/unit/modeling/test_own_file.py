"""`path/file.py:Class`: what is wrong with the file or the class is said, with its name and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from hfexport.errors import InputsError
from hfexport.modeling.user_class import OnnxConfig, load_class

GOOD = """
from hfexport.onnx import OnnxConfig

class Mine(OnnxConfig):
    @property
    def inputs(self):
        return {"input_ids": {0: "batch", 1: "sequence"}}
"""


def _problem(tmp_path: Path, code: str, name: str = "Mine") -> str:
    path = tmp_path / "mine.py"
    path.write_text(code)
    with pytest.raises(InputsError) as caught:
        load_class(f"{path}:{name}")
    return caught.value.problems[0]


def test_the_class_is_found(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(GOOD)
    found = load_class(f"{tmp_path / 'mine.py'}:Mine")
    assert issubclass(found, OnnxConfig)
    assert found.__name__ == "Mine"


def test_a_class_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    assert "has no class Yours; it has Mine" in _problem(tmp_path, GOOD, "Yours")


def test_a_class_of_another_kind_is_refused(tmp_path: Path) -> None:
    assert "is no OnnxConfig: Other; it has Mine" in _problem(tmp_path, GOOD + "\nclass Other: pass\n", "Other")


def test_a_class_without_inputs_is_refused(tmp_path: Path) -> None:
    code = "from hfexport.onnx import OnnxConfig\nclass Mine(OnnxConfig): pass\n"
    assert _problem(tmp_path, code).endswith("Mine has no inputs")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("class Mine(:\n", "line 1: SyntaxError"),
        ("import math\n\nmath.nothing\n", "line 3: AttributeError"),
        ("import no_such_module_at_all\n", "line 1: ModuleNotFoundError"),
        ("def f():\n    return 1 / 0\nf()\n", "line 2: ZeroDivisionError"),
        ("class Mine(Exception): pass\nraise Mine()\n", "line 2: Mine"),
        ("import sys\nsys.exit()\n", "line 2: SystemExit"),
    ],
)
def test_code_that_fails_is_told_with_its_line(tmp_path: Path, code: str, said: str) -> None:
    assert f"mine.py, {said}" in _problem(tmp_path, code)
