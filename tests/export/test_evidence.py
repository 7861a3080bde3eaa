"""A model whose answers hardly vary: the run says that they prove nothing, and a smaller tolerance proves them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from safetensors.torch import load_file, save_file

from hfexport.cli.main import main
from hfexport.manifest.entries import check_manifest
from hfexport.manifest.summary import job_summary
from tiny import make_checkpoint


def _answer_zeros(folder: Path) -> None:
    """Set the classifier of an exported graph to zero, with the hash in the manifest corrected."""
    path = folder / "onnx" / "model.onnx"
    model = onnx.load(path)
    weights = [one for one in model.graph.initializer if 0 < np.abs(numpy_helper.to_array(one)).max() < 1e-6]
    assert weights
    for one in weights:
        one.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(one)), one.name))
    onnx.save(model, path)
    manifest = json.loads((folder / "hfexport.json").read_text())
    (entry,) = manifest["artifacts"][0]["files"]
    entry |= {"size_bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    (folder / "hfexport.json").write_text(json.dumps(manifest))


def test_a_model_of_tiny_values(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "bert", "sequence-classification", tokenizer=True)
    tensors = load_file(checkpoint / "model.safetensors")
    tensors |= {name: value * 1e-9 for name, value in tensors.items() if name.startswith("classifier.")}
    save_file(tensors, checkpoint / "model.safetensors", {"format": "pt"})
    output = tmp_path / "out"
    assert main(["--model", str(checkpoint), "--formats", "onnx", "--output", str(output)]) == 0
    manifest = json.loads((output / "hfexport.json").read_text())
    check_manifest(manifest)
    assert manifest["verdict"] == "incomplete"
    validation = manifest["artifacts"][0]["validation"]
    assert validation["verdict"] == "incomplete"
    assert "too little to compare: logits: over all probes" in validation["reason"]
    assert "values to compare: **not run**" in job_summary(manifest)
    verify = ["verify", str(output), "--model", str(checkpoint)]
    capfd.readouterr()
    assert main(verify) == 4
    assert "a constant would pass" in capfd.readouterr().err
    assert main([*verify, "--atol", "1e-13"]) == 0
    _answer_zeros(output)
    assert main(verify) in (4, 6)
    assert main([*verify, "--atol", "1e-13"]) == 6
