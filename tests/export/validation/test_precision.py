"""Artifacts judged by the model in higher precision: half precision, and models that are ill-conditioned in float32."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import transformers
from onnx import numpy_helper
from safetensors.numpy import load_file, save_file

from broken import METADATA, export_config
from hfexport.backends.base import Artifact, ExportJob
from hfexport.backends.onnx.backend import OnnxBackend
from hfexport.cli.main import main
from hfexport.errors import UnsupportedError
from hfexport.export_config.probes import validation_probes
from hfexport.validation import resolve_tolerance, start_reference, validate
from tiny import make_checkpoint


@pytest.fixture(scope="module")
def half_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny llama in float16."""
    folder = tmp_path_factory.mktemp("half") / "checkpoint"
    make_checkpoint(folder, "llama", "causal-lm-with-past", dtype="fp16")
    return folder


def test_a_decoder_in_half_precision_passes_and_its_distances_are_recorded(half_decoder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert main([str(half_decoder), "--formats", "onnx", "--output", str(output)]) == 0
    manifest = json.loads((output / "hfexport.json").read_text(encoding="utf-8"))
    assert manifest["dtype"] == "fp16"
    outputs = [output for probe in manifest["artifacts"][0]["validation"]["probes"] for output in probe["outputs"]]
    judged = [output["distances"] for output in outputs if output["distances"] is not None]
    assert judged
    assert all(one["exact"] == "fp32" and one["artifact"] <= one["allowed"] for one in judged)


def test_a_wrong_artifact_in_half_precision_fails(half_decoder: Path, tmp_path: Path) -> None:
    config = export_config(half_decoder, "causal-lm-with-past")
    (tmp_path / "onnx").mkdir()
    job = ExportJob(half_decoder, config, "fp16", tmp_path / "onnx", METADATA)
    artifact = OnnxBackend().export(job)
    reference = start_reference(
        half_decoder, config, "fp16", validation_probes(config), folder=tmp_path / "reference", env=os.environ
    )
    tolerance = resolve_tolerance(config, "fp16", None, None)
    assert (
        validate(
            artifact, config, reference, tolerance, folder=tmp_path / "right", env=os.environ, timeout_s=900.0
        ).verdict
        == "passed"
    )
    model = onnx.load(artifact.path)
    largest = max(model.graph.initializer, key=lambda one: np.prod(one.dims))
    weights = numpy_helper.to_array(largest).copy()
    weights[::2] *= np.float16(1.5)
    largest.CopyFrom(numpy_helper.from_array(weights, largest.name))
    wrong = tmp_path / "wrong.onnx"
    onnx.save(model, wrong)
    verdict = validate(
        Artifact("onnx", wrong, (wrong,)),
        config,
        reference,
        tolerance,
        folder=tmp_path / "wrong",
        env=os.environ,
        timeout_s=900.0,
    )
    assert verdict.verdict == "failed"
    assert any("from the model in fp32" in line for line in verdict.failures)


def test_a_model_that_overflows_half_precision_is_refused(half_decoder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(half_decoder, folder)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("mlp.down_proj.weight"))
    up = name.replace("down_proj", "up_proj")
    weights[name] = np.sign(weights[name]) * np.float16(3e4)
    weights[up] = np.sign(weights[up]) * np.float16(3e4)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = export_config(folder, "causal-lm-with-past")
    reference = start_reference(
        folder, config, "fp16", validation_probes(config), folder=tmp_path / "reference", env=os.environ
    )
    (tmp_path / "onnx").mkdir()
    job = ExportJob(folder, config, "fp16", tmp_path / "onnx", METADATA)
    artifact = OnnxBackend().export(job)
    with pytest.raises(UnsupportedError, match="not fit for float16") as caught:
        validate(
            artifact,
            config,
            reference,
            resolve_tolerance(config, "fp16", None, None),
            folder=tmp_path / "run",
            env=os.environ,
            timeout_s=900.0,
        )
    assert "dtype: fp32" in caught.value.remedy


@pytest.mark.parametrize("validate", ["strict", pytest.param("off", marks=pytest.mark.thorough)])
def test_a_model_that_does_not_run_in_half_precision_is_refused(
    validate: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # DeBERTa makes its query and value biases in float32, so no back end can capture it in float16 either.
    folder = make_checkpoint(tmp_path / "checkpoint", "deberta", "default", dtype="fp16")
    assert main([str(folder), "--formats", "onnx", "--validate", validate, "--output", str(tmp_path / "out")]) == 4
    said = capsys.readouterr().err
    assert "not fit for float16: it fails in float16 at batch 1, sequence 1, and runs in float32: RuntimeError" in said
    assert "dtype: fp32" in said


def test_an_ill_conditioned_model_is_held_against_float64(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    make_checkpoint(folder, "llama", "causal-lm-with-past")
    weights = load_file(folder / "model.safetensors")
    # Large weights before each softmax make small roundings grow.
    for name in weights:
        if "q_proj" in name or "k_proj" in name:
            weights[name] = weights[name] * np.float32(60)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    output = tmp_path / "out"
    assert main([str(folder), "--formats", "onnx", "--output", str(output)]) == 0
    manifest = json.loads((output / "hfexport.json").read_text(encoding="utf-8"))
    outputs = [output for probe in manifest["artifacts"][0]["validation"]["probes"] for output in probe["outputs"]]
    judged = [output["distances"] for output in outputs if output["distances"] is not None]
    assert judged
    assert all(one["exact"] == "fp64" and one["artifact"] <= one["allowed"] for one in judged)
    assert main(["verify", str(output), "--model", str(folder), "--atol", "2e-5", "--rtol", "1e-4"]) == 6


_ILL_CONDITIONED: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma3_text": ("Gemma3ForCausalLM", {"num_hidden_layers": 24, "hidden_size": 64, "sliding_window": 16}),
    "qwen3_5_text": (
        "Qwen3_5ForCausalLM",
        {
            **{"layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2},
            **{"linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8},
        },
    ),
}


def _sharpened(model_type: str, name: str, weight: torch.Tensor) -> torch.Tensor:
    """Return a weight with which small roundings grow."""
    if model_type == "gemma3_text":  # norms before each softmax, in many layers
        return weight + 3 if weight.ndim == 1 else weight
    return weight * 20 if weight.ndim > 1 and "embed" not in name else weight  # sums over all tokens


@pytest.mark.thorough
@pytest.mark.parametrize("model_type", _ILL_CONDITIONED)
def test_an_ill_conditioned_architecture_passes_by_float64(model_type: str, tmp_path: Path) -> None:
    class_name, changes = _ILL_CONDITIONED[model_type]
    values: dict[str, Any] = {
        "vocab_size": 100,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "head_dim": 8,
    }
    values |= {"num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64, "pad_token_id": 1}
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(model_type, **{**values, **changes})
    model = getattr(transformers, class_name)(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(_sharpened(model_type, name, weight))
    folder, output = tmp_path / "checkpoint", tmp_path / "out"
    model.save_pretrained(folder)
    words = [str(folder), "--task", "causal-lm", "--formats", "onnx", "--output", str(output)]
    assert main(words) == 0
    manifest = json.loads((output / "hfexport.json").read_text(encoding="utf-8"))
    assert manifest["verdict"] == "passed"
    outputs = [output for probe in manifest["artifacts"][0]["validation"]["probes"] for output in probe["outputs"]]
    judged = [output["distances"] for output in outputs if output["distances"] is not None]
    assert judged
    assert all(one["exact"] == "fp64" and one["artifact"] <= one["allowed"] for one in judged)
    # The eager float32 model is itself further from float64 than the tolerance, so that it could not be the measure.
    assert max(one["eager"] for one in judged) > 2e-5
    assert main([*words, "--atol", "2e-5", "--rtol", "1e-4"]) == 6
