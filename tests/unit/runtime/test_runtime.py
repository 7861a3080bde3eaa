"""Padding up to an artifact's fixed sizes and cutting its answers back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hfexport.export_config import TensorSpec
from hfexport.runtime import Description, input_sizes, pad_to_fixed, slice_outputs

TOTAL = "past_sequence + sequence"
INPUTS = (
    TensorSpec("input_ids", ("batch", "sequence"), "int64", "token_ids"),
    TensorSpec("attention_mask", ("batch", TOTAL), "int64", "attention_mask"),
    TensorSpec("past_key_values.0.key", ("batch", 2, "past_sequence", 4), "float", "past_key"),
)
OUTPUTS = (
    TensorSpec("logits", ("batch", "sequence"), "float", "output"),
    TensorSpec("present.0.key", ("batch", 2, TOTAL, 4), "float", "output"),
)
FIXED = {"batch": 3, "sequence": 5, "past_sequence": 4}
PAD = {"input_ids": 9, "attention_mask": 0}
IMAGE = (TensorSpec("pixel_values", ("batch", 3, "height", "width"), "float", "pixel_values"),)


def _inputs(batch: int = 2, sequence: int = 3, past: int = 1) -> dict[str, NDArray[Any]]:
    return {
        "input_ids": np.arange(batch * sequence).reshape(batch, sequence),
        "attention_mask": np.ones((batch, past + sequence), dtype=np.int64),
        "past_key_values.0.key": np.ones((batch, 2, past, 4), dtype=np.float32),
    }


def test_new_tokens_are_padded_on_the_right_and_the_cache_on_the_left() -> None:
    padded = pad_to_fixed(_inputs(), INPUTS, FIXED, PAD)

    assert padded["input_ids"].tolist() == [[0, 1, 2, 9, 9], [3, 4, 5, 9, 9], [9, 9, 9, 9, 9]]
    # Three places of the cache are empty, its one token and three new ones are seen, two are padding.
    assert padded["attention_mask"].tolist() == [[0, 0, 0, 1, 1, 1, 1, 0, 0]] * 2 + [[0] * 9]
    key = padded["past_key_values.0.key"]
    assert key.shape == (3, 2, 4, 4)
    assert key[:2, :, 3].all()
    assert not key[:, :, :3].any()
    assert key.dtype == np.float32


def test_outputs_are_cut_back_to_where_the_real_tokens_stand() -> None:
    sizes = input_sizes(_inputs(), INPUTS)
    assert sizes == {"batch": 2, "sequence": 3, "past_sequence": 1}

    logits = np.arange(3 * 5 * 7).reshape(3, 5, 7)
    present = np.arange(3 * 2 * 9 * 4).reshape(3, 2, 9, 4)
    cut = slice_outputs({"logits": logits, "present.0.key": present}, OUTPUTS, FIXED, sizes)

    assert np.array_equal(cut["logits"], logits[:2, :3])
    assert np.array_equal(cut["present.0.key"], present[:2, :, 3:7])


def test_inputs_of_the_fixed_size_stay_as_they_are() -> None:
    inputs = _inputs(3, 5, 4)
    padded = pad_to_fixed(inputs, INPUTS, FIXED, PAD)
    assert all(np.array_equal(padded[name], inputs[name]) for name in inputs)


def test_axes_that_are_not_fixed_are_left_alone() -> None:
    padded = pad_to_fixed(_inputs(2, 7, 6), INPUTS, {"batch": 3}, PAD)
    assert padded["input_ids"].shape == (3, 7)
    assert padded["past_key_values.0.key"].shape == (3, 2, 6, 4)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (_inputs(sequence=6), "sequence is 6, but this artifact takes at most 5"),
        (_inputs(batch=4), "batch is 4, but this artifact takes at most 3"),
        (_inputs(past=5), "past_sequence is 5, but this artifact takes at most 4"),
        ({"input_ids": np.zeros((1, 2), int)}, "missing: attention_mask, past_key_values.0.key"),
        ({**_inputs(), "labels": np.zeros(2)}, "unknown: labels"),
        ({**_inputs(), "input_ids": np.zeros(3, int)}, r"input_ids has shape \(3,\)"),
        ({**_inputs(), "attention_mask": np.ones((2, 3), int)}, r"attention_mask has shape \(2, 3\).*\(2, 4\)"),
        ({**_inputs(), "past_key_values.0.key": np.ones((2, 3, 1, 4))}, r"key has shape \(2, 3, 1, 4\)"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs: Mapping[str, NDArray[Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pad_to_fixed(inputs, INPUTS, FIXED, PAD)


def test_an_image_is_not_padded() -> None:
    image = np.zeros((1, 3, 30, 32), dtype=np.float32)
    with pytest.raises(ValueError, match="height is 30, but this artifact takes exactly 32"):
        pad_to_fixed({"pixel_values": image}, IMAGE, {"batch": 2, "height": 32, "width": 32}, {})


def test_a_model_without_a_padding_token_is_not_padded_along_the_sequence() -> None:
    pad = {"input_ids": None, "attention_mask": 0}
    with pytest.raises(ValueError, match="sequence is 3, but this artifact takes exactly 5: .* no padding token"):
        pad_to_fixed(_inputs(), INPUTS, FIXED, pad)
    assert pad_to_fixed(_inputs(sequence=5), INPUTS, FIXED, pad)["attention_mask"].shape == (3, 9)


def test_a_description_survives_json() -> None:
    description = Description(INPUTS, OUTPUTS, "float16", FIXED, {**PAD, "past_key_values.0.key": 0}, {"task": "x"})
    values = json.loads(json.dumps(description.to_dict()))

    assert Description.from_dict(values) == description
    assert [entry["dtype"] for entry in values["inputs"]] == ["int64", "int64", "float16"]
    assert values["inputs"][0] == {
        "name": "input_ids",
        "dtype": "int64",
        "axes": ["batch", "sequence"],
        "role": "token_ids",
        "pad_value": 9,
    }
