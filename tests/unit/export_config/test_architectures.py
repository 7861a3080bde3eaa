"""Export configs: found by themselves, and true to the interface of `transformers.onnx`."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoConfig

from hfexport.errors import UnsupportedError
from hfexport.export_config import ExportConfig, axis_size
from hfexport.export_config.builtin import config_class_for, known_architectures
from hfexport.export_config.tasks import TASKS


def _export_config(model_type: str, task: str, **settings: Any) -> ExportConfig:
    return config_class_for(model_type)(AutoConfig.for_model(model_type, **settings), TASKS[task])


def test_the_first_set_is_found() -> None:
    assert set(known_architectures()) >= {
        *("bert", "distilbert", "roberta", "xlm-roberta", "albert", "electra", "deberta-v2"),
        *("gpt2", "llama", "qwen3", "vit", "convnext", "resnet"),
    }


def test_an_unknown_architecture_names_the_known_ones() -> None:
    with pytest.raises(UnsupportedError, match="'mamba9'") as caught:
        config_class_for("mamba9")
    assert "xlm-roberta" in caught.value.remedy


def test_both_spellings_of_a_model_type_are_known() -> None:
    assert config_class_for("gpt-neo") is config_class_for("gpt_neo")
    assert config_class_for("xlm-roberta") is config_class_for("roberta")


@pytest.mark.parametrize(
    ("model_type", "task"),
    [(model_type, task) for model_type, cls in known_architectures().items() for task in cls.tasks],
)
def test_every_pair_has_a_coherent_interface(model_type: str, task: str) -> None:
    config = _export_config(model_type, task)
    names = [spec.name for spec in (*config.inputs, *config.outputs)]
    assert len(names) == len(set(names))
    for spec in config.inputs:
        for axis in spec.axes:
            assert axis_size(axis, config.trace_sizes) >= 1
    assert set(config.limits) <= set(config.trace_sizes)
    low, high = config.opsets
    assert low <= config.default_opset <= high


def test_inputs_follow_the_order_of_transformers_onnx() -> None:
    assert [spec.name for spec in _export_config("bert", "masked-lm").inputs] == [
        "input_ids",
        "attention_mask",
        "token_type_ids",
    ]
    assert [spec.name for spec in _export_config("distilbert", "default").inputs] == ["input_ids", "attention_mask"]


def test_a_decoder_with_past_names_its_cache_as_consumers_expect() -> None:
    config = _export_config("llama", "causal-lm-with-past", num_hidden_layers=1, num_key_value_heads=4)
    assert [spec.name for spec in config.inputs] == [
        *("input_ids", "attention_mask", "position_ids", "past_key_values.0.key", "past_key_values.0.value")
    ]
    assert [spec.name for spec in config.outputs] == ["logits", "present.0.key", "present.0.value"]
    assert config.inputs[1].axes == ("batch", "past_sequence + sequence")
    assert config.inputs[3].axes == ("batch", 4, "past_sequence", 128)


def test_roberta_positions_start_behind_the_padding_id() -> None:
    assert _export_config("roberta", "default", max_position_embeddings=66).limits["sequence"].maximum == 64


def test_a_decoder_without_padding_classifies_one_row_at_a_time() -> None:
    config = _export_config("gpt2", "sequence-classification")
    assert "batch" not in config.free_axes
    assert "batch" in _export_config("gpt2", "sequence-classification", pad_token_id=0).free_axes
