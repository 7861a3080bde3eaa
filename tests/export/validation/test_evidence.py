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

from broken import export_config
from hfexport.cli.main import main
from hfexport.export_config.probes import validation_probes
from hfexport.manifest.entries import check_manifest
from hfexport.manifest.summary import job_summary
from hfexport.validation.reference.worker import run as answer
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
    assert (validation["validated_up_to"], validation["left_out"]) == ({"batch": 3, "sequence": 64}, [])
    assert "- onnx/model.onnx: validated up to batch 3, sequence 64" in job_summary(manifest)
    verify = ["verify", str(output), "--model", str(checkpoint)]
    capfd.readouterr()
    assert main(verify) == 4
    assert "a constant would pass" in capfd.readouterr().err
    assert main([*verify, "--atol", "1e-13"]) == 0
    _answer_zeros(output)
    assert main(verify) in (4, 6)
    assert main([*verify, "--atol", "1e-13"]) == 6


@pytest.mark.parametrize(
    ("model_type", "task", "left_out"),
    [
        ("bert", "masked-lm", []),
        ("clip", "default", ["text_model_output", "vision_model_output"]),
        ("bart", "default", ["past_key_values", "encoder_last_hidden_state"]),
        ("gpt2", "default-with-past", []),
    ],
)
def test_what_the_model_gives_beside_the_outputs_is_named(
    model_type: str, task: str, left_out: list[str], tmp_path: Path
) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", model_type, task)
    (config,) = export_config(checkpoint, task).graphs("split")
    probe = validation_probes(config)[0]
    graph = {"recipe": dict(config.recipe), "probes": [probe], "folder": str(tmp_path / "answers")}
    job = {"checkpoint": str(checkpoint), "dtype": "fp32", "threads": 1, "graphs": [graph]}
    answered = answer({**job, "exact": None, "exact_checkpoint": str(checkpoint), "answered": False})
    assert answered["left_out"] == {config.graph: tuple(left_out)}
