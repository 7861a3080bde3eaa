"""Artifacts as users of optimum-onnx and sentence-transformers load them: the same answers as the model.

The peers live in an environment of their own, with the transformers that they need, which `make interop-test` makes.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from hfexport.cli.main import main
from hfexport.export_config.tasks import TASKS
from interop.made import BEAMS, GREEDY, export, text, write_sentence_modules
from tiny import make_checkpoint

PYTHON = Path(__file__).resolve().parents[2] / ".venv-optimum" / "bin" / "python"
PEER = Path(__file__).with_name("peer.py")


def ask_peer(*questions: Mapping[str, Any]) -> list[Any]:
    """Answers of the peer, in the order of the questions."""
    assert PYTHON.exists(), f"{PYTHON} is missing; `make interop-test` makes it"
    lines = "".join(json.dumps(question) + "\n" for question in questions)
    result = subprocess.run([PYTHON, PEER], input=lines, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-4000:]
    answers = [line.removeprefix("answer ") for line in result.stdout.splitlines() if line.startswith("answer ")]
    return [json.loads(answer) for answer in answers]


@pytest.mark.parametrize(
    ("loader", "model_type", "task", "options", "changes"),
    [
        # Deeper decoders than encoders are what the grid has; `generate` itself cannot drive them.
        ("ORTModelForSeq2SeqLM", "t5", "seq2seq-lm-with-past", {}, {"num_decoder_layers": 2}),
        ("ORTModelForSeq2SeqLM", "t5", "seq2seq-lm-with-past", {}, {"num_decoder_layers": 2, "layout": "split"}),
        ("ORTModelForSeq2SeqLM", "marian", "seq2seq-lm-with-past", {}, {"decoder_layers": 2}),
        ("ORTModelForSeq2SeqLM", "bart", "seq2seq-lm", {"use_cache": False}, {"decoder_layers": 2}),
        ("ORTModelForCausalLM", "gpt2", "causal-lm-with-past", {}, {}),
        ("ORTModelForCausalLM", "llama", "causal-lm-with-past", {}, {}),
    ],
)
def test_it_generates_what_the_model_generates(
    loader: str, model_type: str, task: str, options: dict[str, Any], changes: dict[str, Any], tmp_path: Path
) -> None:
    checkpoint, output = export(tmp_path, model_type, task, **changes)
    model = getattr(transformers, TASKS[task].auto_class).from_pretrained(checkpoint).eval()
    inputs = text(model.config.vocab_size, model.config.pad_token_id, left=not model.config.is_encoder_decoder)
    np.savez(tmp_path / "inputs.npz", **inputs)  # type: ignore[arg-type]
    question = {"ask": "generate", "class": loader, "folder": str(output), "inputs": str(tmp_path / "inputs.npz")}
    answers = ask_peer(*({**question, "options": options, "settings": dict(plan)} for plan in (GREEDY, BEAMS)))

    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    for plan, answer in zip((GREEDY, BEAMS), answers, strict=True):
        assert answer == model.generate(**tensors, **plan, use_cache=options.get("use_cache", True)).tolist()


def test_a_pipeline_classifies_as_the_model_does(tmp_path: Path) -> None:
    checkpoint, output = export(tmp_path, "bert", "sequence-classification", tokenizer=True)
    texts = ["the cat sat on the mat.", "a good film", "bad!"]
    question = {
        **{"ask": "classify", "class": "ORTModelForSequenceClassification", "pipeline": "text-classification"},
        **{"folder": str(output), "texts": texts, "settings": {"top_k": None}},
    }
    (answer,) = ask_peer(question)

    expected: Any = transformers.pipeline("text-classification", model=str(checkpoint))(texts, top_k=None)
    assert [[entry["label"] for entry in row] for row in answer] == [[e["label"] for e in row] for row in expected]
    found = [[entry["score"] for entry in row] for row in answer]
    np.testing.assert_allclose(found, [[entry["score"] for entry in row] for row in expected], atol=1e-5)


def test_sentence_transformers_embed_as_with_the_checkpoint(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "bert", "default", tokenizer=True)
    write_sentence_modules(checkpoint, dense=(10, 32))
    output = tmp_path / "output"
    assert main(["--model", str(checkpoint), "--task", "default", "--formats", "onnx", "--output", str(output)]) == 0
    asked = {"ask": "embed", "texts": ["the cat sat on the mat.", "a good film", "bad!"]}
    torch_answer, onnx_answer = ask_peer(
        {**asked, "folder": str(checkpoint), "backend": "torch"}, {**asked, "folder": str(output), "backend": "onnx"}
    )
    assert np.shape(onnx_answer) == (3, 10)
    np.testing.assert_allclose(onnx_answer, torch_answer, atol=1e-5)


def test_the_answers_are_those_of_the_artifact(tmp_path: Path) -> None:
    """Another seed's checkpoint gives other tokens, so that equality above says something."""
    _, output = export(tmp_path, "gpt2", "causal-lm-with-past", seed=1)
    other = make_checkpoint(tmp_path / "other", "gpt2", "causal-lm-with-past")
    model = transformers.AutoModelForCausalLM.from_pretrained(other).eval()
    inputs = text(model.config.vocab_size, model.config.pad_token_id, left=True)
    np.savez(tmp_path / "inputs.npz", **inputs)  # type: ignore[arg-type]
    question = {"ask": "generate", "class": "ORTModelForCausalLM", "folder": str(output), "settings": dict(GREEDY)}
    (answer,) = ask_peer({**question, "inputs": str(tmp_path / "inputs.npz")})
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    assert answer != model.generate(**tensors, **GREEDY).tolist()
