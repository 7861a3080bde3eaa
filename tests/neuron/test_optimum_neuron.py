"""Artifacts as users of optimum-neuron load them: its own reader of config.json, its own padding, the same answers."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from hfexport.export_config.tasks import TASKS
from neuron.conftest import ROOT, WITH_DEVICE, Exporter, require

PEER = Path(__file__).with_name("optimum_peer.py")
PACKAGES = ROOT / ".venv-neuron" / "optimum"


def ask_peer(python: Path, job: dict[str, Any]) -> dict[str, Any]:
    require(PACKAGES / "optimum")
    env = {**os.environ, "PYTHONPATH": str(PACKAGES), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([python, PEER], input=json.dumps(job), capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("answer ")]
    answer: dict[str, Any] = json.loads(line.removeprefix("answer "))
    return answer


def text_inputs(*shape: int, token_types: bool = True) -> dict[str, Any]:
    ids = np.random.default_rng(0).integers(5, 90, shape)
    mask = np.ones_like(ids)
    mask[..., -2:] = 0
    return {"input_ids": ids, "attention_mask": mask} | ({"token_type_ids": np.zeros_like(ids)} if token_types else {})


@pytest.mark.parametrize(
    ("loader", "model_type", "task", "inputs"),
    [
        ("SequenceClassification", "distilbert", "sequence-classification", text_inputs(1, 7, token_types=False)),
        ("QuestionAnswering", "bert", "question-answering", text_inputs(2, 9)),
        ("MaskedLM", "roberta", "masked-lm", text_inputs(2, 5, token_types=False)),
        ("FeatureExtraction", "electra", "default", text_inputs(1, 6)),
        ("MultipleChoice", "bert", "multiple-choice", text_inputs(1, 3, 6)),
        (
            *("ImageClassification", "vit", "image-classification"),
            {"pixel_values": np.random.default_rng(1).random((1, 3, 32, 32), np.float32)},
        ),
    ],
)
def test_its_classes_load_pad_and_answer_as_the_model(
    exporter: Exporter, loader: str, model_type: str, task: str, inputs: dict[str, Any]
) -> None:
    checkpoint = exporter.checkpoint(model_type, task)
    options = ("--task", task, "--batch-size", "2", "--validate", "off")
    done = exporter.run(checkpoint, *options, stand_in=WITH_DEVICE)
    assert done.code == 0, done.said
    np.savez(exporter.folder / "inputs.npz", **inputs)
    job = {
        "class": f"NeuronModelFor{loader}",
        "folder": str(done.folder / "neuron"),
        "inputs": str(exporter.folder / "inputs.npz"),
    }
    answer = ask_peer(exporter.python, job)
    assert answer["shapes"] == {entry["name"]: sizes_of(entry, done.artifact) for entry in done.artifact["inputs"]}
    model = getattr(transformers, TASKS[task].auto_class).from_pretrained(checkpoint).eval()
    with torch.no_grad():
        wanted = model(**{name: torch.from_numpy(array) for name, array in inputs.items()})
    assert set(answer["outputs"]) == set(TASKS[task].outputs)
    for name, values in answer["outputs"].items():
        np.testing.assert_allclose(np.array(values), wanted[name].numpy(), atol=0.1, err_msg=name)


def sizes_of(entry: dict[str, Any], artifact: dict[str, Any]) -> list[int]:
    return [artifact["fixed_sizes"].get(axis, axis) for axis in entry["axes"]]
