"""Artifacts as users of Transformers.js load them in Node: the same answers as the model.

Node and the package live in an environment of their own, which `make interop-test` makes.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from hfexport.export_config.tasks import TASKS
from interop.made import export, text
from tiny import make_checkpoint

ENVIRONMENT = Path(__file__).resolve().parents[2] / ".venv-js"
PEER = Path(__file__).with_name("peer.cjs")

GREEDY: Mapping[str, Any] = {"max_new_tokens": 16, "do_sample": False, "num_beams": 1, "eos_token_id": None}
"""To the last token for every row: Transformers.js goes on with a row that has ended until all have."""


def ask_peer(*questions: Mapping[str, Any]) -> list[Any]:
    """Answers of the peer, in the order of the questions."""
    node = ENVIRONMENT / "bin" / "node"
    assert node.exists(), f"{node} is missing; `make interop-test` makes it"
    lines = "".join(json.dumps(question) + "\n" for question in questions)
    env = {**os.environ, "NODE_PATH": str(ENVIRONMENT / "node_modules")}
    result = subprocess.run([node, PEER], input=lines, capture_output=True, text=True, check=False, env=env)
    assert result.returncode == 0, result.stderr[-4000:]
    answers = [line.removeprefix("answer ") for line in result.stdout.splitlines() if line.startswith("answer ")]
    return [json.loads(answer) for answer in answers]


def generated(loader: str, output: Path, inputs: Mapping[str, np.ndarray[Any, Any]]) -> Any:
    given = {name: array.tolist() for name, array in inputs.items()}
    question = {"ask": "generate", "class": loader, "folder": str(output), "inputs": given, "settings": dict(GREEDY)}
    (answer,) = ask_peer(question)
    return answer


@pytest.mark.parametrize(
    ("loader", "model_type", "task", "changes"),
    [
        ("AutoModelForSeq2SeqLM", "t5", "seq2seq-lm-with-past", {"num_decoder_layers": 2}),
        ("AutoModelForSeq2SeqLM", "bart", "seq2seq-lm-with-past", {"decoder_layers": 2}),
        ("AutoModelForSeq2SeqLM", "marian", "seq2seq-lm-with-past", {"decoder_layers": 2}),
        ("AutoModelForCausalLM", "gpt2", "causal-lm-with-past", {}),
        ("AutoModelForCausalLM", "llama", "causal-lm-with-past", {}),
    ],
)
def test_it_generates_what_the_model_generates(
    loader: str, model_type: str, task: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    checkpoint, output = export(tmp_path, model_type, task, **changes)
    model = getattr(transformers, TASKS[task].auto_class).from_pretrained(checkpoint).eval()
    inputs = text(model.config.vocab_size, model.config.pad_token_id, left=not model.config.is_encoder_decoder)
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    assert generated(loader, output, inputs) == model.generate(**tensors, **GREEDY).tolist()


def test_the_answers_are_those_of_the_artifact(tmp_path: Path) -> None:
    """Another seed's checkpoint gives other tokens, so that equality above says something."""
    changes = {"num_decoder_layers": 2}
    _, output = export(tmp_path, "t5", "seq2seq-lm-with-past", seed=1, **changes)
    other = make_checkpoint(tmp_path / "other", "t5", "seq2seq-lm-with-past", **changes)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(other).eval()
    inputs = text(model.config.vocab_size, model.config.pad_token_id)
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    assert generated("AutoModelForSeq2SeqLM", output, inputs) != model.generate(**tensors, **GREEDY).tolist()


def test_a_pipeline_classifies_as_the_model_does(tmp_path: Path) -> None:
    checkpoint, output = export(tmp_path, "bert", "sequence-classification", tokenizer=True)
    texts = ["the cat sat on the mat.", "a good film", "bad!"]
    question = {"ask": "classify", "pipeline": "text-classification", "folder": str(output), "texts": texts}
    (answer,) = ask_peer({**question, "settings": {"top_k": 3}})

    expected: Any = transformers.pipeline("text-classification", model=str(checkpoint))(texts, top_k=None)
    assert [[entry["label"] for entry in row] for row in answer] == [[e["label"] for e in row] for row in expected]
    found = [[entry["score"] for entry in row] for row in answer]
    np.testing.assert_allclose(found, [[entry["score"] for entry in row] for row in expected], atol=1e-5)
