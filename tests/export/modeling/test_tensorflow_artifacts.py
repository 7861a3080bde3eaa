"""TensorFlow checkpoints, by the command line to ONNX Runtime and `torch.jit.load`, answer as TensorFlow did."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from hfexport.cli import main as cli
from hfexport.runtime import load_torchscript
from tensorflow_checkpoints import ANSWER_OTHERWISE, COMMITTED, TOLERANCE, difference

QUICK = (
    *("TFBertForSequenceClassification-safetensors", "TFBertForSequenceClassification-sharded"),
    *("TFGPT2LMHeadModel", "TFViTForImageClassification"),
)
"""One of each kind: way of storing, encoder, decoder, image. Encoder-decoders take longest and are thorough."""

APART = {
    "TFLongformerForMultipleChoice": "its reference says which tokens have global attention; artifacts take no such input",
    "TFSpeech2TextForConditionalGeneration": "no export config describes it as an encoder-decoder",
    **{f"TF{name}": "its TensorFlow class computes something else" for name in ANSWER_OTHERWISE},
}
"""Those that no artifact can be compared with; tests/export/modeling/test_tensorflow.py has the model itself answer."""

TASKS = {
    **{"vision-encoder-decoder": "vision2seq-lm", "whisper": "speech2seq-lm"},
    **dict.fromkeys(("bart", "blenderbot", "blenderbot-small", "marian", "mbart", "mt5", "t5"), "seq2seq-lm"),
}
"""By model type, for encoder-decoders: the reference holds one call of the whole model, without a cache."""


def _checkpoints() -> list[Any]:
    found = sorted(path.parent.name for path in COMMITTED.glob("*/reference.npz"))
    slow = pytest.mark.thorough
    return [name if name in QUICK else pytest.param(name, marks=slow) for name in found if name not in APART]


def _given(entries: list[dict[str, Any]], reference: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the artifact takes: the reference's inputs, and what TensorFlow took for those that it was not given."""
    batch, length = next(value.shape for key, value in reference.items() if key.startswith("input."))[:2]
    fillers = {
        "position_ids": lambda: np.tile(np.arange(length), (batch, 1)),
        "global_attention_mask": lambda: np.zeros((batch, length), np.int64),
        "token_type_ids": lambda: np.zeros((batch, length), np.int64),
    }
    given = {}
    for entry in entries:
        name = entry["name"]
        if f"input.{name}" in reference:
            value = reference[f"input.{name}"]
        elif name.startswith("past_key_values."):
            value = np.zeros([{"batch": batch, "past_sequence": 0}.get(axis, axis) for axis in entry["axes"]])
        elif name == "decoder_attention_mask":
            value = np.ones_like(reference["input.decoder_input_ids"])
        else:
            value = fillers[name]()
        given[name] = np.ascontiguousarray(value.astype(entry["dtype"]))
    return given


@pytest.mark.parametrize("name", _checkpoints())
def test_artifacts_answer_as_tensorflow_did(name: str, tmp_path: Path) -> None:
    folder, output = COMMITTED / name, tmp_path / "output"
    config = json.loads((folder / "config.json").read_bytes())
    whole = (
        name.removeprefix("TF")
        .partition("-")[0]
        .endswith(("ForConditionalGeneration", "MTModel", "EncoderDecoderModel"))
    )
    task = TASKS[config["model_type"]] if whole else "auto"
    options = ["--layout", "single", "--validate", "off", "--output", str(output)]
    assert cli.main(["--model", str(folder), "--task", task, *options]) == 0
    manifest = json.loads((output / "hfexport.json").read_bytes())
    assert manifest["source"]["weight_format"].startswith("tensorflow")
    assert {entry["path"] for entry in manifest["source"]["files"]} == {
        path.name for path in folder.iterdir() if path.name not in ("reference.npz", "generation_config.json")
    }
    with np.load(folder / "reference.npz") as file:
        reference = {key: file[key] for key in file}
    wanted = {key[7:]: value for key, value in reference.items() if key.startswith("output.")}
    assert [artifact["format"] for artifact in manifest["artifacts"]] == ["onnx", "torchscript"]
    for artifact in manifest["artifacts"]:
        given = _given(artifact["inputs"], reference)
        answers = _answers(output / artifact["path"], artifact, given)
        compared = answers.keys() & wanted.keys()
        assert compared
        for key in compared:
            off = difference(answers[key], wanted[key], reference.get("input.attention_mask"))
            assert off < TOLERANCE, f"{artifact['path']}: {key} is off by {off}"


def _answers(path: Path, artifact: Mapping[str, Any], given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if artifact["format"] == "torchscript":
        return {key: value.numpy() for key, value in load_torchscript(path)(**given).items()}
    names = [entry["name"] for entry in artifact["outputs"]]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, given), strict=True))
