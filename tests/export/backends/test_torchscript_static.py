"""TorchScript artifacts of fixed shape: declared as such, and right at smaller inputs once these are padded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from hfexport.backends.base import ExportJob
from hfexport.backends.torchscript.backend import TorchScriptBackend
from hfexport.export_config import ExportConfig
from hfexport.export_config.builtin import config_class_for
from hfexport.export_config.probes import make_inputs
from hfexport.export_config.probes.values import Padding
from hfexport.export_config.tasks import TASKS
from hfexport.modeling.load import FlatModel, load_model
from hfexport.runtime import TorchScriptModel, load_torchscript, pad_to_fixed
from tiny import make_checkpoint

FIXED = {"batch": 3, "choice": 4, "sequence": 12, "past_sequence": 6}


def static_artifact(
    folder: Path, model_type: str, task: str, **changes: Any
) -> tuple[TorchScriptModel, FlatModel, ExportConfig]:
    checkpoint = make_checkpoint(folder / "checkpoint", model_type, task, **changes)
    config = config_class_for(model_type)(transformers.AutoConfig.from_pretrained(checkpoint), TASKS[task])
    fixed = {axis: FIXED[axis] for axis in config.free_axes}
    (folder / "torchscript").mkdir()
    job = ExportJob(checkpoint, config, "fp32", folder / "torchscript", {}, fixed_sizes=fixed)
    artifact = TorchScriptBackend().export(job)
    assert artifact.fixed_sizes == {"batch": 1, **fixed}  # 1 where the model itself takes no more
    names = ([spec.name for spec in config.inputs], [spec.name for spec in config.outputs])
    return load_torchscript(artifact.path), FlatModel(load_model(checkpoint, config, "fp32"), *names), config


@pytest.mark.parametrize(
    ("model_type", "task", "padding"),
    [
        ("bert", "sequence-classification", "right"),
        ("bert", "multiple-choice", "right"),
        ("roberta", "token-classification", "right"),
        ("deberta-v2", "question-answering", "right"),
        ("gpt2", "sequence-classification", "right"),
        ("gpt2", "causal-lm-with-past", "left"),
        ("llama", "causal-lm-with-past", "left"),
    ],
)
def test_smaller_inputs_are_padded_and_answered_as_without_padding(
    model_type: str, task: str, padding: Padding, tmp_path: Path
) -> None:
    static, eager, config = static_artifact(tmp_path, model_type, task)
    assert static.description.fixed_sizes == {axis: FIXED[axis] for axis in config.free_axes}

    for batch, sequence, past in ((1, 1, 0), (2, 7, 4), (3, 12, 6)):
        sizes = {"batch": batch, "choice": 2, "sequence": sequence, "past_sequence": past}
        inputs = make_inputs(config, sizes, "fp32", padding=padding, seed=sequence)
        outputs = static(**inputs)
        with torch.inference_mode():
            expected = eager(*(torch.from_numpy(array) for array in inputs.values()))
        for spec, wanted in zip(config.outputs, expected, strict=True):
            found = outputs[spec.name]
            assert found.shape == wanted.shape
            # What a padding token attends to is nobody's answer; it may differ.
            keep = _seen(inputs["attention_mask"], spec.name, sequence) if len(spec.axes) > 1 else ...
            if spec.name.startswith("present."):
                found, wanted = found.transpose(1, 2), wanted.transpose(1, 2)
            if task == "multiple-choice":
                keep = ...
            np.testing.assert_allclose(found[keep].numpy(), wanted[keep].numpy(), atol=1e-5, rtol=1e-5)


def _seen(mask: Any, name: str, sequence: int) -> torch.Tensor:
    return torch.from_numpy((mask if name.startswith("present.") else mask[..., -sequence:]) == 1)


def test_larger_inputs_are_refused(tmp_path: Path) -> None:
    static, _, config = static_artifact(tmp_path, "bert", "sequence-classification")
    inputs = make_inputs(config, {"batch": 1, "sequence": 13}, "fp32")
    with pytest.raises(ValueError, match="sequence is 13, but this artifact takes at most 12"):
        static(**inputs)
    with pytest.raises(ValueError, match="missing: attention_mask, token_type_ids"):
        static(input_ids=inputs["input_ids"])


def test_padding_with_a_mask_of_ones_would_be_noticed(tmp_path: Path) -> None:
    static, eager, config = static_artifact(tmp_path, "bert", "sequence-classification")
    inputs = make_inputs(config, {"batch": 3, "sequence": 5}, "fp32")
    with torch.inference_mode():
        (expected,) = eager(*(torch.from_numpy(array) for array in inputs.values()))
    wrong = pad_to_fixed(inputs, config.inputs, static.description.fixed_sizes, {"attention_mask": 1})
    assert (static(**wrong)["logits"] - expected).abs().max() > 1e-2


def test_without_a_padding_token_the_sequence_must_be_full(tmp_path: Path) -> None:
    static, eager, config = static_artifact(tmp_path, "llama", "sequence-classification", pad_token_id=None)
    full = make_inputs(config, {"batch": 1, "sequence": 12}, "fp32", seed=3)
    with torch.inference_mode():
        (expected,) = eager(*(torch.from_numpy(array) for array in full.values()))
    torch.testing.assert_close(static(**full)["logits"], expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="no padding token"):
        static(**make_inputs(config, {"batch": 1, "sequence": 11}, "fp32"))
    with pytest.raises(ValueError, match="batch is 2, but this artifact takes at most 1"):
        static(**make_inputs(config, {"batch": 2, "sequence": 12}, "fp32"))
