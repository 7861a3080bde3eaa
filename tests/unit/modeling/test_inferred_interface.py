"""Interfaces inferred from models without weights: of sound, video and time series, and models that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers

from hfexport.checkpoint.local import open_checkpoint
from hfexport.errors import UnsupportedError
from hfexport.export_config.base import Limit
from hfexport.modeling.find_export_config import find_export_config
from tiny import CONFIGS, MISSES, make_checkpoint


def find(folder: Path, task: str = "auto", notes: list[str] | None = None) -> Any:
    config = transformers.AutoConfig.from_pretrained(folder)
    note = [].append if notes is None else notes.append
    return find_export_config(
        open_checkpoint(folder), config, task, "fp32", own=None, trust_remote_code=False, note=note
    )


def inferred(folder: Path, task: str = "auto") -> tuple[dict[str, tuple[Any, ...]], list[str]]:
    """The axes of each input, and the notes for the user."""
    notes: list[str] = []
    found = find(folder, task, notes)
    return {spec.name: tuple(spec.axes) for spec in found.inputs}, notes


@pytest.mark.parametrize(
    ("model_type", "expected"),
    [
        ("vivit", {"pixel_values": ("batch", 4, 3, 32, 32)}),
        ("clap_audio_model", {"input_features": ("batch", 1, 256, 16)}),
        ("encodec", {"input_values": ("batch", 1, "samples")}),
        ("patchtst", {"past_values": ("batch", 32, 3)}),
        (
            "time_series_transformer",
            {
                "past_values": ("batch", 10, 2),
                "past_time_features": ("batch", 10, 2),
                "past_observed_mask": ("batch", 10, 2),
                "static_categorical_features": ("batch", 2),
                "static_real_features": ("batch", 1),
                "future_values": ("batch", 4, 2),
                "future_time_features": ("batch", 4, 2),
            },
        ),
    ],
)
def test_inputs_that_are_no_text(model_type: str, expected: dict[str, tuple[Any, ...]], tmp_path: Path) -> None:
    assert inferred(make_checkpoint(tmp_path, model_type, "auto"))[0] == expected


@pytest.mark.parametrize("model_type", ["pix2struct", "smolvlm"])
def test_a_model_that_takes_something_unknown_is_refused(model_type: str, tmp_path: Path) -> None:
    make_checkpoint(tmp_path, model_type, "auto")
    with pytest.raises(UnsupportedError) as refused:
        inferred(tmp_path)
    assert refused.value.exit_code == 4
    assert f"(model_type {model_type!r}) cannot be inferred for task conditional-generation" in refused.value.message
    assert MISSES[model_type][1] in refused.value.message
    assert "--export-config" in refused.value.remedy


def test_a_cache_of_states_is_left_out_unless_it_is_asked_for(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, "mamba", "auto")
    found, _ = inferred(tmp_path)
    assert not any(name.startswith("past") for name in found)
    with pytest.raises(UnsupportedError):
        inferred(tmp_path, "causal-lm-with-past")


def test_a_decoder_without_a_padding_token_classifies_single_rows(tmp_path: Path) -> None:
    values = {**CONFIGS["mistral"], "pad_token_id": None}
    config = transformers.AutoConfig.for_model("mistral", **values)
    transformers.MistralForSequenceClassification(config).save_pretrained(tmp_path)
    found = find(tmp_path)
    assert found.task.name == "sequence-classification"
    assert found.limits["batch"] == Limit(1, 1)
