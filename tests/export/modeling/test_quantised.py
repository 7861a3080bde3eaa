"""Quantised checkpoints through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hfexport.cli.main import main
from quantised.packing import METHODS, quantise_checkpoint
from tiny import make_checkpoint


@pytest.mark.parametrize("method", METHODS)
def test_it_is_exported_as_the_dequantised_model(method: str, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "llama", "causal-lm-with-past")
    quantise_checkpoint(checkpoint, method)
    output = tmp_path / "out"
    words = ["--model", str(checkpoint), "--output", str(output), "--task", "causal-lm", "--formats", "torchscript"]
    assert main(words) == 0
    manifest = json.loads((output / "hfexport.json").read_text())
    assert manifest["verdict"] == "passed"
    assert manifest["source"]["conversion"]["dequantised"] == method
    assert "quantization_config" not in json.loads((output / "config.json").read_text())
    if method == "gptq":
        assert main(["verify", str(output), "--model", str(checkpoint)]) == 0


def test_another_method_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "llama", "causal-lm-with-past")
    quantise_checkpoint(checkpoint, "gptq")
    config = json.loads((checkpoint / "config.json").read_text())
    config["quantization_config"]["quant_method"] = "aqlm"
    (checkpoint / "config.json").write_text(json.dumps(config))
    assert main(["--model", str(checkpoint), "--output", str(tmp_path / "out")]) == 4
    said = capsys.readouterr().err
    assert "'aqlm'" in said
    assert "dequantize" in said
