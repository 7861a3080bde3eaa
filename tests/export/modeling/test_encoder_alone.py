"""Checkpoints that hold the encoder of an encoder-decoder alone, as `T5EncoderModel` saves it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hfexport.cli.main import main
from tiny import make_checkpoint
from tiny.sentence import write_modules


@pytest.mark.parametrize(
    ("model_type", "task", "outputs"),
    [
        ("t5", "auto", ["last_hidden_state"]),
        ("umt5", "sentence-embedding", ["token_embeddings", "sentence_embedding"]),
    ],
)
def test_it_is_exported_as_the_encoder_that_it_is(
    model_type: str, task: str, outputs: list[str], tmp_path: Path
) -> None:
    class_name = {"t5": "T5EncoderModel", "umt5": "UMT5EncoderModel"}[model_type]
    checkpoint = make_checkpoint(tmp_path / "checkpoint", model_type, "default", saved_by=class_name)
    if task == "sentence-embedding":
        write_modules(checkpoint, ("mean",), dense=(10, 24))
    output = tmp_path / "output"
    assert main(["--model", str(checkpoint), "--output", str(output), "--task", task]) == 0
    manifest = json.loads((output / "hfexport.json").read_text())
    assert manifest["verdict"] == "passed"
    for artifact in manifest["artifacts"]:
        assert [entry["name"] for entry in artifact["inputs"]] == ["input_ids", "attention_mask"]
        assert [entry["name"] for entry in artifact["outputs"]] == outputs


def test_a_task_that_takes_the_decoder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "t5", "default", saved_by="T5EncoderModel")
    arguments = ["--model", str(checkpoint), "--output", str(tmp_path / "output")]
    assert main([*arguments, "--task", "seq2seq-lm"]) == 4
    assert "task 'seq2seq-lm' is not supported for t5" in capsys.readouterr().err
