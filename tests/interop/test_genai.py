"""Exports with `target: genai` in ONNX Runtime GenAI: the same 30 greedy tokens as `generate`, and as its `q4` file.

Prompts of different lengths are padded on the right, as GenAI pads them, and on the left. The package lives in an environment of its own,
which `make interop-test` makes.
"""

from __future__ import annotations

import json
import subprocess
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import GenerationMixin

from hfexport.cli.main import main
from tiny import make_checkpoint

PYTHON = Path(__file__).resolve().parents[2] / ".venv-genai" / "bin" / "python"
PEER = Path(__file__).with_name("genai_peer.py")
TASK = "causal-lm-with-past"
WHISPER_PEER = Path(__file__).with_name("genai_whisper_peer.py")
SPOKEN = ("<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>")
WHISPER = {"encoder": "encoder_model", "decoder": "decoder_model_merged"}
STEPS = 30
LONG_ROPE = {
    **{"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 64},
    **{"short_factor": [1.0, 1.2, 1.5, 1.7], "long_factor": [1.0, 2.0, 5.0, 9.0]},
}


def _prompts(vocabulary: int) -> list[Any]:
    """Return prompts of different lengths, each as a batch of one; ids that mean something to models are left out."""
    rng = np.random.default_rng(0)
    return [rng.integers(5, vocabulary - 2, (1, length)) for length in (9, 4, 6)]


def _padded(prompts: Sequence[Any], pad: int, *, left: bool = False) -> Any:
    """Return the prompts as one batch."""
    longest = max(prompt.shape[1] for prompt in prompts)
    widths = [(longest - prompt.shape[1], 0) if left else (0, longest - prompt.shape[1]) for prompt in prompts]
    rows = [np.pad(prompt[0], width, constant_values=pad) for prompt, width in zip(prompts, widths, strict=True)]
    return np.stack(rows)


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


def _greedy(model: Path, ids: Any, end: int) -> list[int]:
    """Return the new tokens of one prompt that ONNX Runtime gives, up to the first end."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    outputs = [value.name for value in session.get_outputs()]
    cache = {
        value.name: np.zeros([1, value.shape[1], 0, value.shape[3]], np.float32)
        for value in session.get_inputs()
        if value.name.startswith("past_key_values")
    }
    tokens: list[int] = []
    while len(tokens) < STEPS and tokens[-1:] != [end]:
        start = 0 if not tokens else ids.shape[1] + len(tokens) - 1
        given = ids if not tokens else np.array([tokens[-1:]])
        length = start + given.shape[1]
        inputs = {"input_ids": given, "attention_mask": np.ones((1, length), np.int64)}
        inputs["position_ids"] = np.arange(start, length)[None]
        known = {value.name for value in session.get_inputs()}
        found = session.run(None, {name: array for name, array in (inputs | cache).items() if name in known})
        answer = dict(zip(outputs, found, strict=True))
        cache = {name: answer[name.replace("past_key_values", "present")] for name in cache}
        tokens.append(int(answer["logits"][0, -1].argmax()))
    return tokens


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
    end, pad = 2, 0
    checkpoint = make_checkpoint(
        tmp_path / "checkpoint", model_type, TASK, eos_token_id=end, pad_token_id=pad, **changes
    )
    output = _export(tmp_path, checkpoint, "--variants", "q4", "--validate", "off")
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(checkpoint).eval()  # type: ignore[no-untyped-call]
    prompts = _prompts(model.config.vocab_size)
    settings = {"max_new_tokens": STEPS, "do_sample": False, "num_beams": 1, "eos_token_id": end}
    expected = [
        _until_the_end(model.generate(torch.from_numpy(ids), **settings).tolist(), ids.shape[1], end)[0]
        for ids in prompts
    ]
    assert len(set(map(tuple, expected))) == len(prompts)
    batch = _padded(prompts, pad)
    assert _until_the_end(_generated(output, batch), batch.shape[1], end) == expected
    (alone,) = _until_the_end(_generated(output, prompts[1]), prompts[1].shape[1], end)
    assert alone == [token for token in expected[1] if token != end]  # GenAI leaves the end of a single prompt out
    padded_left = _padded(prompts, pad, left=True)
    assert _until_the_end(_generated(output, padded_left), batch.shape[1], end) == expected
    plain = json.dumps({"model": {"decoder": {"filename": "onnx/model.onnx"}}})
    assert _until_the_end(_generated(output, batch, plain), batch.shape[1], end) == expected
    assert _until_the_end(_generated(output, padded_left, plain), batch.shape[1], end) != expected

    q4 = output / "onnx" / "model_q4.onnx"
    assert any(node.op_type == "MatMulNBits" for node in onnx.load(q4).graph.node)
    chosen = json.dumps({"model": {"decoder": {"filename": "onnx/model_q4_genai.onnx"}}})
    by_file = [_greedy(q4, ids, end) for ids in prompts]
    assert _until_the_end(_generated(output, batch, chosen), batch.shape[1], end) == by_file
    assert _until_the_end(_generated(output, padded_left, chosen), batch.shape[1], end) == by_file


@pytest.mark.parametrize(
    ("model_type", "task"),
    [("bert", "default"), ("t5", "seq2seq-lm-with-past"), ("whisper", "speech2seq-lm")],
)
def test_other_models_are_refused(
    model_type: str, task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", model_type, task)
    asked = ["--model", str(checkpoint), "--task", task, "--formats", "onnx", "--target", "genai"]
    assert main([*asked, "--output", str(tmp_path / "out")]) == 4
    said = capsys.readouterr().err
    assert (
        f"target genai takes whisper and text decoders with a cache, but task {task} of model_type {model_type!r} is none"
        in said
    )


def _write_processor(folder: Path) -> None:
    """Write a feature extractor and a tokenizer of bytes and special tokens beside a checkpoint."""
    special = ["<|endoftext|>", *SPOKEN]
    vocabulary = {token: number for number, token in enumerate([*sorted(ByteLevel.alphabet()), *special])}
    tokenizer = transformers.WhisperTokenizer(vocab=vocabulary, merges=[], additional_special_tokens=special[1:])
    extractor = transformers.WhisperFeatureExtractor(feature_size=80)
    transformers.WhisperProcessor(extractor, tokenizer).save_pretrained(folder)


def _let_sound_and_position_matter(weights: Path) -> None:
    """Enlarge weights of cross-attention and of positions, without which a tiny model repeats one token."""
    factors = {"encoder_attn.q_proj.weight": 5, "encoder_attn.v_proj.weight": 5, "decoder.embed_positions.weight": 10}
    tensors = load_file(weights)
    for name, tensor in tensors.items():
        tensors[name] = tensor * next((factor for ending, factor in factors.items() if name.endswith(ending)), 1)
    save_file(tensors, weights, {"format": "pt"})


def _write_sound(path: Path, seconds: float, seed: int) -> Any:
    """Write a sound as a WAV file of 16 bits; return its samples."""
    noise = np.random.default_rng(seed).standard_normal(int(seconds * 16000))
    samples = (noise * 3000).clip(-(2**15), 2**15 - 1).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(samples.tobytes())
    return samples.astype(np.float32) / 2**15


def test_whisper_transcribes_what_the_model_transcribes(tmp_path: Path) -> None:
    task, end = "speech2seq-lm-with-past", 256
    checkpoint = make_checkpoint(
        *(tmp_path / "checkpoint", "whisper", task),
        max_source_positions=1500,
        num_mel_bins=80,
        vocab_size=261,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=end + 1,
    )
    _let_sound_and_position_matter(checkpoint / "model.safetensors")
    _write_processor(checkpoint)
    output = tmp_path / "output"
    asked = ["--model", str(checkpoint), "--task", task, "--formats", "onnx", "--target", "genai", "--variants", "q4"]
    assert main([*asked, "--validate", "off", "--output", str(output)]) == 0
    sounds = [_write_sound(tmp_path / f"{number}.wav", 1.0 + number, number) for number in range(2)]
    paths = [str(tmp_path / f"{number}.wav") for number in range(2)]
    found = _transcribed(output, paths)
    features = np.load(tmp_path / "features.npy")
    _compare_features(features, checkpoint, sounds)
    model: Any = transformers.WhisperForConditionalGeneration.from_pretrained(checkpoint).eval()
    prompt = torch.tensor([[end + 1, end + 2, end + 3, end + 4]] * 2)
    settings = {"max_new_tokens": STEPS, "do_sample": False, "num_beams": 1, "begin_suppress_tokens": None}
    given = {"input_features": torch.from_numpy(features), "decoder_input_ids": prompt}
    expected = GenerationMixin.generate(model, **given, **settings).tolist()
    assert len({tuple(row) for row in expected}) == len(expected)
    assert all(len(set(row[4:])) > 3 for row in expected)
    assert _until_the_end(found, 4, end) == _until_the_end(expected, 4, end)

    q4 = {part: {"filename": f"onnx/{name}_q4_genai.onnx"} for part, name in WHISPER.items()}
    found = _transcribed(output, paths, json.dumps({"model": q4}))
    by_file = _transcribed_by_file(output, features, prompt.numpy())
    assert _until_the_end(found, 4, end) == _until_the_end(by_file, 4, end)


def _compare_features(found: Any, checkpoint: Path, sounds: Sequence[Any]) -> None:
    """Compare with the feature extractor of transformers, but for two frames where a sound starts and ends.

    GenAI pads a sound with zeros there, and transformers mirrors it.
    """
    extractor: Any = transformers.AutoFeatureExtractor.from_pretrained(checkpoint)
    expected = extractor(sounds, sampling_rate=16000, return_tensors="np").input_features
    assert found.shape == expected.shape
    for row, samples in enumerate(sounds):
        frames = len(samples) // extractor.hop_length
        np.testing.assert_allclose(found[row, :, 2 : frames - 2], expected[row, :, 2 : frames - 2], atol=1e-3)


def _transcribed(output: Path, sounds: Sequence[str], overlay: str = "") -> list[list[int]]:
    """Return the tokens that GenAI gives for sounds, with its own processor."""
    command = [str(PYTHON), str(WHISPER_PEER), str(output), "".join(SPOKEN), str(STEPS), overlay, *sounds]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    (answer,) = [line.removeprefix("answer ") for line in result.stdout.splitlines() if line.startswith("answer ")]
    return list(json.loads(answer))


def _transcribed_by_file(output: Path, features: Any, tokens: Any) -> list[list[int]]:
    """Return the tokens that ONNX Runtime gives with the proven `q4` graphs."""
    encoder, decoder = (
        onnxruntime.InferenceSession(output / "onnx" / f"{name}_q4.onnx", providers=["CPUExecutionProvider"])
        for name in WHISPER.values()
    )
    (states,) = encoder.run(None, {"input_features": features})
    shapes = {value.name: value.shape for value in decoder.get_inputs()}
    empty = {name: np.zeros((2, 1, 0, 1), np.float32) for name in shapes if name.startswith("past_key_values")}
    for _ in range(STEPS):  # the whole text in each call: the branch without a cache
        given = {"input_ids": tokens, "encoder_hidden_states": states, "use_cache_branch": np.array([False])}
        logits = decoder.run(["logits"], {**given, **empty})[0]
        tokens = np.concatenate([tokens, logits[:, -1:].argmax(-1)], axis=1)
    return list(tokens.tolist())
