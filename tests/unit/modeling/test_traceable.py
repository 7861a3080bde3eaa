"""Models that are made traceable give the outputs of transformers' own code, at lengths that fill no block."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers

from hfexport.backends.patches import model_patches
from hfexport.modeling.traceable import make_traceable
from hfexport.modeling.traceable.lstm import lstm
from tiny import CONFIGS

TEXT = {"canine": "CanineForTokenClassification", "big_bird": "BigBirdModel", "longformer": "LongformerModel"}
SEQ2SEQ = {
    "bigbird_pegasus": "BigBirdPegasusModel",
    "led": "LEDModel",
    "nllb-moe": "NllbMoeModel",
    "switch_transformers": "SwitchTransformersModel",
}


def made(model_type: str, class_name: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    """A model with weights wide apart, and a copy that is traceable."""
    config = transformers.AutoConfig.for_model(model_type, **CONFIGS[model_type])
    torch.manual_seed(0)
    model: Any = getattr(transformers, class_name)._from_config(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.3)
    changed = copy.deepcopy(model)
    make_traceable(changed)
    assert {type(part) for part in changed.modules()} != {type(part) for part in model.modules()}
    return model, changed


def compare(model: torch.nn.Module, changed: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> None:
    with torch.inference_mode():
        torch.manual_seed(0)
        expected = model(**inputs, return_dict=True)
        found = changed(**inputs, return_dict=True)
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=1e-4)


def tokens(length: int) -> dict[str, torch.Tensor]:
    """Two rows, the second of which has three paddings."""
    mask = torch.ones(2, length, dtype=torch.long)
    mask[1, -3:] = 0
    return {"input_ids": torch.randint(6, 90, (2, length)), "attention_mask": mask}


@pytest.mark.parametrize(("model_type", "length"), [(name, length) for name in TEXT for length in (33, 48)])
def test_encoders(model_type: str, length: int) -> None:
    model, changed = made(model_type, TEXT[model_type])
    compare(model, changed, tokens(length))


@pytest.mark.parametrize("model_type", SEQ2SEQ)
def test_encoder_decoders(model_type: str) -> None:
    model, changed = made(model_type, SEQ2SEQ[model_type])
    compare(model, changed, {**tokens(37), "decoder_input_ids": torch.randint(6, 90, (2, 5)), "use_cache": False})


@pytest.mark.parametrize("samples", [31, 160, 1003])
def test_sound_in_one_piece(samples: int) -> None:
    model, changed = made("encodec", "EncodecModel")
    with torch.inference_mode():
        sound = torch.randn(2, 1, samples)
        expected, found = model(sound), changed(sound)
    torch.testing.assert_close(found.audio_codes, expected.audio_codes)
    torch.testing.assert_close(found.audio_values, expected.audio_values, atol=1e-5, rtol=1e-4)


def test_a_recurrence_as_one_operator() -> None:
    layers = torch.nn.LSTM(6, 8, num_layers=2)
    with torch.inference_mode():
        given = torch.randn(7, 3, 6)
        torch.testing.assert_close(lstm(layers, given), layers(given)[0])


def test_a_scan_as_one_operator() -> None:
    config = transformers.AutoConfig.for_model("mamba", **CONFIGS["mamba"])
    torch.manual_seed(0)
    model = transformers.MambaForCausalLM(config).eval()
    inputs = {**tokens(11), "use_cache": False}
    with torch.inference_mode():
        expected = model(**inputs).logits
        with model_patches("mamba"):
            found = model(**inputs).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
