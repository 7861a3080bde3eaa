"""Task `sentence-embedding`: pooling, dense layers and normalisation of a sentence-transformers folder in the graph."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from safetensors.torch import load_file

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


def _export(checkpoint: Path, output: Path, *options: str) -> onnxruntime.InferenceSession:
    arguments = ["--model", str(checkpoint), "--output", str(output), "--formats", "onnx", *options]
    assert main(arguments) == 0
    return onnxruntime.InferenceSession(output / "onnx/model.onnx")


def _embed(session: onnxruntime.InferenceSession) -> np.ndarray:
    ids = np.array([[5, 6, 7]])
    inputs = {value.name: np.zeros_like(ids) if "type" in value.name else ids for value in session.get_inputs()}
    (embedding,) = session.run(["sentence_embedding"], inputs | {"attention_mask": np.ones_like(ids)})
    return np.asarray(embedding)


def test_an_older_layout_with_a_dense_layer_in_a_torch_file(tmp_path: Path) -> None:
    """The transformer lies in a folder of its own; the export's own folder has it beside modules.json."""
    plain, older = tmp_path / "plain", tmp_path / "older"
    write_modules(make_checkpoint(plain, "bert", "default"), ("mean",), dense=(10, 32))
    shutil.copytree(plain, older)
    (older / "0_Transformer").mkdir()
    for name in ("config.json", "model.safetensors"):
        (older / name).rename(older / "0_Transformer" / name)
    entries = json.loads((older / "modules.json").read_bytes())
    entries[0]["path"] = "0_Transformer"
    (older / "modules.json").write_text(json.dumps(entries))
    torch.save(load_file(older / "2_Dense/model.safetensors"), older / "2_Dense/pytorch_model.bin")
    (older / "2_Dense/model.safetensors").unlink()
    expected = _embed(_export(plain, tmp_path / "a", "--task", "sentence-embedding", "--validate", "off"))
    found = _embed(_export(older, tmp_path / "b", "--task", "sentence-embedding"))
    np.testing.assert_array_equal(found, expected)
    written = json.loads((tmp_path / "b/modules.json").read_bytes())
    assert [entry["path"] for entry in written] == ["", "1_Pooling", "2_Dense", "3_Normalize"]
    assert (tmp_path / "b/config.json").read_bytes() == (older / "0_Transformer/config.json").read_bytes()
    assert not (tmp_path / "b/0_Transformer").exists()


def test_splade_is_pooled_in_the_graph(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "bert", "masked-lm")
    kinds = {"": "MLMTransformer", "1_SpladePooling": "SpladePooling"}
    entries = [
        {"type": f"sentence_transformers.sparse_encoder.models.{kind}", "path": place} for place, kind in kinds.items()
    ]
    (checkpoint / "modules.json").write_text(json.dumps(entries))
    (checkpoint / "1_SpladePooling").mkdir()
    (checkpoint / "1_SpladePooling/config.json").write_text(json.dumps({"pooling_strategy": "max"}))
    session = _export(checkpoint, tmp_path / "out", "--task", "sentence-embedding", "--validate", "off")
    assert [output.name for output in session.get_outputs()] == ["sentence_embedding"]
    model = transformers.AutoModelForMaskedLM.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[5, 6, 7]])).logits
    np.testing.assert_allclose(_embed(session), logits.relu().log1p().amax(dim=1).numpy(), atol=1e-5)


def test_auto_takes_what_the_folder_is_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "bert", "default")
    config = json.loads((checkpoint / "config.json").read_bytes()) | {"architectures": ["BertForMaskedLM"]}
    (checkpoint / "config.json").write_text(json.dumps(config))
    write_modules(checkpoint, ("mean",))
    session = _export(checkpoint, tmp_path / "out", "--validate", "off")
    assert [output.name for output in session.get_outputs()] == ["last_hidden_state"]
    assert "sentence-transformers, exported for default" in capsys.readouterr().err
