"""`report` through the command line: written after a success and a failure, and gone with the export."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hfexport.cli import main as cli
from tiny import make_checkpoint


def test_a_report_is_written_and_goes_with_its_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "bert", "sequence-classification")
    output, outputs = tmp_path / "output", tmp_path / "outputs"
    monkeypatch.setenv("GITHUB_OUTPUT", str(outputs))
    arguments = ["--model", str(checkpoint), "--output", str(output), "--formats"]
    assert cli.main([*arguments, "onnx,torchscript", "--report"]) == 0
    page = (output / "report.html").read_text(encoding="utf-8")
    manifest = json.loads((output / "hfexport.json").read_text(encoding="utf-8"))
    for artifact in manifest["artifacts"]:
        operators = artifact["details"]["operators"]
        assert sum(operators.values()) >= artifact["details"]["nodes"]
        assert all(f"<bdi>{name}</bdi>" in page for name in operators)
        assert f'<data value="{artifact["validation"]["max_abs_diff"]}">' in page
        shares = [
            output["tolerance_share"] for probe in artifact["validation"]["probes"] for output in probe["outputs"]
        ]
        assert max(shares) == artifact["validation"]["tolerance_share"]
    assert str(output / "report.html") in outputs.read_text(encoding="utf-8")

    assert cli.main([*arguments, "torchscript", "--atol", "1e-12", "--report"]) == 6
    assert "does not answer as the model does" in (output / "report.html").read_text(encoding="utf-8")

    assert cli.main([*arguments, "onnx", "--task", "image-classification"]) != 0
    assert not (output / "report.html").exists()
    capsys.readouterr()


def test_a_report_that_no_run_of_hfexport_made_stays(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "bert", "sequence-classification")
    output = tmp_path / "output"
    output.mkdir()
    (output / "report.html").write_text("mine", encoding="utf-8")
    arguments = ["--model", str(checkpoint), "--output", str(output), "--task", "image-classification"]
    assert cli.main(arguments) != 0
    assert cli.main(arguments) != 0
    assert (output / "report.html").read_text(encoding="utf-8") == "mine"
