"""Tensors of a checkpoint that the model has no place for: which may stay out, and which end a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from hfexport.checkpoint import look_over, read_checkpoint
from hfexport.errors import CheckpointError
from hfexport.modeling.unused import Unused, refuse_unused, unused_tensors
from hfexport.onnx.__main__ import main as older_command_line
from hfexport.run.inputs import Inputs
from hfexport.run.selection import find_config, look_up

_BERT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 40,
    "max_position_embeddings": 16,
}


def _add(folder: Path, extra: Mapping[str, torch.Tensor]) -> None:
    path = folder / "model.safetensors"
    save_file({**load_file(path), **extra}, path, metadata={"format": "pt"})


def _unused(folder: Path, task: str) -> Unused:
    inputs, contents = Inputs(model=str(folder), task=task), look_over(folder)
    checkpoint = read_checkpoint(contents)
    config = find_config(checkpoint, look_up(contents, inputs), inputs, "fp32", lambda _: None)
    return unused_tensors(checkpoint, config, "fp32")


def _bert(folder: Path, name: str = "BertForPreTraining", **changed: object) -> Path:
    config = transformers.BertConfig(**{**_BERT, **changed})
    getattr(transformers, name)(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("task", ["default", "masked-lm"])
def test_heads_of_other_tasks_may_stay_out(tmp_path: Path, task: str) -> None:
    found = _unused(_bert(tmp_path), task)
    assert not found.unexpected
    assert "cls.seq_relationship.weight" in found.left_out


def test_buffers_that_earlier_versions_stored_may_stay_out(tmp_path: Path) -> None:
    folder = _bert(tmp_path, "BertForMaskedLM")
    _add(folder, {"bert.embeddings.position_ids": torch.arange(16)[None]})
    assert _unused(folder, "masked-lm") == Unused(("bert.embeddings.position_ids",))


def test_layers_past_those_of_the_config_are_unexpected(tmp_path: Path) -> None:
    folder = _bert(tmp_path, "BertForMaskedLM")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    found = _unused(folder, "masked-lm")
    assert len(found.unexpected) == 16
    assert all(".layer.1." in name for name in found.unexpected)


@pytest.mark.parametrize(
    "name",
    [
        "bert.encoder.layer.0.attention.self.query.lora_A.weight",
        "bert.encoder.layer.0.attention.self.distance_embedding.weight",
        "age_head.weight",
        "bert.encoder.layer.0.attention.bias",
    ],
)
def test_a_tensor_of_nobody_ends_the_run(tmp_path: Path, name: str) -> None:
    folder = _bert(tmp_path, "BertForMaskedLM")
    _add(folder, {name: torch.ones(3, 16)})
    found = _unused(folder, "masked-lm")
    assert found.unexpected == (name,)
    with pytest.raises(CheckpointError, match=name) as caught:
        refuse_unused(found, ["*other*"])
    assert "--allow-unused" in caught.value.remedy
    assert refuse_unused(found, ["*other*", f"{name[:-3]}*"]) == (name,)


def test_causal_masks_that_gpt2_stored_may_stay_out(tmp_path: Path) -> None:
    config = transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=40, n_positions=16)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    _add(tmp_path, {"transformer.h.0.attn.bias": torch.ones(1, 1, 16, 16)})
    assert not _unused(tmp_path, "causal-lm").unexpected


def test_the_older_command_line_refuses_it_too(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = _bert(tmp_path / "model", "BertForSequenceClassification")
    _add(folder, {"age_head.weight": torch.zeros(2, 16)})
    words = ["--model", str(folder), "--feature", "sequence-classification", str(tmp_path / "onnx")]
    assert older_command_line(words) == 1
    assert "no place for: age_head.weight" in capfd.readouterr().err
    assert not list((tmp_path / "onnx").iterdir())
