"""A run that memory cannot hold ends before any weight is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from hfexport.cli.main import main
from hfexport.validation import memory
from tiny import make_checkpoint


def test_a_run_that_cannot_fit_ends_with_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", "bert", "default")
    monkeypatch.setattr(memory, "available_bytes", lambda: 100_000_000)
    assert main(["--model", str(folder), "--formats", "onnx", "--output", str(tmp_path / "output")]) == 2
    assert "of memory are needed, and 100.0 MB are free" in capfd.readouterr().err
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["hfexport.json"]
