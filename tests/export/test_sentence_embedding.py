"""Task `sentence-embedding`: pooling, dense layers and normalisation of a sentence-transformers folder in the graph."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from hfexport.cli.main import main
from tiny import make_checkpoint
from tiny.sentence import write_modules


@pytest.mark.parametrize(
    ("model_type", "task", "modes", "size"),
    [
        ("bert", "default", ("cls", "mean", "weightedmean"), 96),
        ("qwen3", "default", ("lasttoken",), 32),
        ("mpnet", "auto", ("max",), 32),
    ],
    ids=["an encoder", "a decoder", "inferred"],
)
def test_a_folder_becomes_one_graph(
    model_type: str, task: str, modes: tuple[str, ...], size: int, tmp_path: Path
) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", model_type, task)
    write_modules(checkpoint, modes, dense=(10, size) if model_type == "bert" else None)
    output = tmp_path / "output"
    formats = () if model_type == "bert" else ("--formats", "onnx")
    arguments = ["--model", str(checkpoint), "--output", str(output), "--task", "sentence-embedding", *formats]
    assert main(arguments) == 0
    manifest = json.loads((output / "hfexport.json").read_text())
    assert (manifest["verdict"], manifest["task"]) == ("passed", "sentence-embedding")
    outputs = [entry["name"] for entry in manifest["artifacts"][0]["outputs"]]
    assert outputs == ["token_embeddings", "sentence_embedding"]
    session = onnxruntime.InferenceSession(output / "onnx/model.onnx")
    ids = np.array([[5, 6, 7]])
    inputs = {value.name: np.zeros_like(ids) if "type" in value.name else ids for value in session.get_inputs()}
    (embedding,) = session.run(["sentence_embedding"], inputs | {"attention_mask": np.ones_like(ids)})
    assert embedding.shape == (1, 10 if model_type == "bert" else size)
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1.0, atol=1e-5)


def test_a_folder_without_modules_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "bert", "default")
    arguments = ["--model", str(checkpoint), "--output", str(tmp_path / "out"), "--task", "sentence-embedding"]
    assert main(arguments) == 3
    assert "has no modules.json" in capsys.readouterr().err
