"""`generate_dummy_inputs` with real preprocessors, and the models that `FeaturesManager` loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoTokenizer,
    DistilBertForMaskedLM,
    ViTImageProcessor,
    Wav2Vec2FeatureExtractor,
)

from hfexport.errors import InputsError
from hfexport.modeling.user_class.dummies import load_preprocessor
from hfexport.onnx import FeaturesManager
from tiny import make_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("distilbert"), "distilbert", "masked-lm", tokenizer=True)


def made(model_type: str, feature: str, **values: Any) -> Any:
    return FeaturesManager.get_config(model_type, feature)(AutoConfig.for_model(model_type, **values))


def test_tokens(checkpoint: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    config = made("distilbert", "masked-lm")
    inputs = config.generate_dummy_inputs(tokenizer, framework="pt")
    assert inputs["input_ids"].shape == (config.default_batch_size, config.default_sequence_length)
    inputs = config.generate_dummy_inputs(tokenizer, batch_size=3, seq_length=5, framework="np")
    assert isinstance(inputs["attention_mask"], np.ndarray)
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape == (3, 5)


def test_choices_have_an_axis(checkpoint: Path) -> None:
    config = made("distilbert", "multiple-choice")
    inputs = config.generate_dummy_inputs(AutoTokenizer.from_pretrained(checkpoint), num_choices=3, framework="pt")
    assert inputs["input_ids"].shape[:2] == (config.default_batch_size, 3)


def test_a_cache_is_two_tokens_longer_than_the_new_ones(checkpoint: Path) -> None:
    config = made("gpt2", "causal-lm-with-past", n_layer=3, n_head=2, n_embd=8)
    inputs = config.generate_dummy_inputs(
        AutoTokenizer.from_pretrained(checkpoint), batch_size=2, seq_length=4, framework="pt"
    )
    assert len(inputs["past_key_values"]) == 3
    assert all(part.shape == (2, 2, 6, 4) for pair in inputs["past_key_values"] for part in pair)
    assert inputs["attention_mask"].shape == (2, 10)


def test_images() -> None:
    processor = ViTImageProcessor(size={"height": 24, "width": 24})
    inputs = made("vit", "image-classification").generate_dummy_inputs(processor, batch_size=2, framework="pt")
    assert inputs["pixel_values"].shape == (2, 3, 24, 24)


def test_sound() -> None:
    extractor = Wav2Vec2FeatureExtractor(sampling_rate=16000)
    config = made("distilbert", "default")
    inputs = config.generate_dummy_inputs(
        extractor, batch_size=2, framework="pt", sampling_rate=1000, time_duration=0.5
    )
    assert inputs["input_values"].shape == (2, 500)


def test_another_preprocessor_is_refused() -> None:
    with pytest.raises(ValueError, match="no dummy inputs can be made with dict: give a tokenizer"):
        made("distilbert", "default").generate_dummy_inputs({}, framework="pt")


def test_collections_of_outputs_are_flattened() -> None:
    config = made("gpt2", "causal-lm-with-past", n_layer=1)
    key, value = torch.zeros(1), torch.ones(1)
    assert config.flatten_output_collection_property("present", [(key, value)]) == {
        "present.0.key": key,
        "present.0.value": value,
    }
    assert config.flatten_output_collection_property("hidden_states", [[key], [value]]) == {
        "hidden_states.0": key,
        "hidden_states.1": value,
    }


def test_a_model_is_loaded_with_the_head_of_a_feature(checkpoint: Path) -> None:
    assert FeaturesManager.get_model_class_for_feature("masked-lm") is AutoModelForMaskedLM
    assert FeaturesManager.determine_framework(str(checkpoint)) == "pt"
    model = FeaturesManager.get_model_from_feature("masked-lm", str(checkpoint))
    assert isinstance(model, DistilBertForMaskedLM)
    model_type, make = FeaturesManager.check_supported_model_or_raise(model, "masked-lm")
    assert (model_type, make(model.config).task) == ("distilbert", "masked-lm")


def test_another_framework_or_feature_is_refused() -> None:
    with pytest.raises(InputsError, match="framework is 'tf': models are exported with PyTorch only; use pt"):
        FeaturesManager.get_model_class_for_feature("masked-lm", "tf")
    with pytest.raises(ValueError, match="feature 'guessing' is not known"):
        FeaturesManager.get_model_class_for_feature("guessing")


def test_a_folder_without_preprocessor_has_none(tmp_path: Path, checkpoint: Path) -> None:
    assert load_preprocessor(str(tmp_path)) is None
    assert load_preprocessor(str(checkpoint)) is not None
    with pytest.raises((OSError, ValueError)):
        load_preprocessor(str(tmp_path), "image_processor")
