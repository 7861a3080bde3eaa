"""`python -m hfexport.onnx`: errors are one log line and exit code 1, as `transformers.onnx` had it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hfexport.onnx.__main__ import main


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    return tmp_path / "model"


def test_an_output_that_cannot_be_made(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    output = tmp_path / "file" / "out"
    assert main(["--model", str(model), str(output)]) == 1
    assert f"output {output}: Not a directory\nChoose another folder." in capsys.readouterr().err


def test_a_folder_without_a_model(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", str(model), str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "config.json" in said
    assert "Traceback" not in said
    assert list((tmp_path / "out").iterdir()) == []
