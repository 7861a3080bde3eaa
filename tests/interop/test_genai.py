"""Exports with `target: genai` in ONNX Runtime GenAI: the same 30 greedy tokens as `generate`.

Prompts of one batch have the same length: GenAI 0.18 passes an attention mask of ones, also for padding. The package lives in an environment of its own, which `make interop-test` makes.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from hfexport.cli.main import main
from tiny import make_checkpoint

PYTHON = Path(__file__).resolve().parents[2] / ".venv-genai" / "bin" / "python"
PEER = Path(__file__).with_name("genai_peer.py")
TASK = "causal-lm-with-past"
STEPS = 30
LONG_ROPE = {
    **{"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 64},
    **{"short_factor": [1.0, 1.2, 1.5, 1.7], "long_factor": [1.0, 2.0, 5.0, 9.0]},
}


def _prompts(vocabulary: int) -> tuple[Any, Any]:
    """Return a batch of three prompts, and one of another length; ids that mean something to models are left out."""
    rng = np.random.default_rng(0)
    return rng.integers(5, vocabulary - 2, (3, 9)), rng.integers(5, vocabulary - 2, (1, 4))


def _generated(output: Path, ids: Any, *overlay: str) -> list[list[int]]:
    assert PYTHON.exists(), f"{PYTHON} is missing; `make interop-test` makes it"
    np.savez(output / "inputs.npz", input_ids=ids)
    command = [str(part) for part in (PYTHON, PEER, output, output / "inputs.npz", STEPS, *overlay)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    (answer,) = [line.removeprefix("answer ") for line in result.stdout.splitlines() if line.startswith("answer ")]
    return list(json.loads(answer))


def _export(folder: Path, checkpoint: Path, *arguments: str) -> Path:
    output = folder / "output"
    asked = ["--model", str(checkpoint), "--task", TASK, "--formats", "onnx", "--target", "genai"]
    assert main([*asked, "--output", str(output), *arguments]) == 0
    return output


def _until_the_end(rows: Sequence[Sequence[int]], prompt: int, end: int | None) -> list[list[int]]:
    """Return the new tokens of each row up to the first end; the padding behind it is the consumer's."""
    new = [list(row[prompt : prompt + STEPS]) for row in rows]
    return [row[: row.index(end) + 1] if end in row else row for row in new]


@pytest.mark.parametrize(
    ("model_type", "saved_by"),
    [
        ("llama", None),
        ("qwen3", None),
        ("gpt2", None),
        ("gemma3_text", "Gemma3ForCausalLM"),
        ("phi3", "Phi3ForCausalLM"),
    ],
)
def test_it_generates_what_the_model_generates(model_type: str, saved_by: str | None, tmp_path: Path) -> None:
    changes: dict[str, Any] = {} if saved_by is None else {"saved_by": saved_by}
    if model_type == "phi3":  # past this length `generate` computes the whole cache again, and GenAI does not
        changes |= {"original_max_position_embeddings": 64, "rope_parameters": LONG_ROPE}
    checkpoint = make_checkpoint(tmp_path / "checkpoint", model_type, TASK, eos_token_id=2, **changes)
    output = _export(tmp_path, checkpoint)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(checkpoint).eval()  # type: ignore[no-untyped-call]
    end = 2
    for ids in _prompts(model.config.vocab_size):
        prompt = ids.shape[1]
        tensors = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.ones(ids.shape, dtype=torch.int64)}
        settings = {"max_new_tokens": STEPS, "do_sample": False, "num_beams": 1, "eos_token_id": end}
        expected = _until_the_end(model.generate(**tensors, **settings).tolist(), prompt, end)
        assert _until_the_end(_generated(output, ids), prompt, end) == expected
        assert len(set(map(tuple, expected))) == len(ids)


def test_a_variant_is_chosen_by_its_file(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "llama", TASK, hidden_size=64, intermediate_size=128)
    output = _export(tmp_path, checkpoint, "--variants", "q4", "--min-similarity", "0.1")
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint)
    ids = _prompts(model.config.vocab_size)[0]
    chosen = json.dumps({"model": {"decoder": {"filename": "onnx/model_q4.onnx"}}})
    assert len(_generated(output, ids, chosen)) == len(ids)


def test_an_encoder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "bert", "default")
    asked = ["--model", str(checkpoint), "--formats", "onnx", "--target", "genai", "--output", str(tmp_path / "out")]
    assert main(asked) == 4
    assert "target genai takes text decoders with a cache" in capsys.readouterr().err
