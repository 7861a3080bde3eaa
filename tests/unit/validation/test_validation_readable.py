"""What the mask hides is left out of the comparison, exactly that, and only if it is finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from transformers import AutoConfig

from hfexport.export_config import ExportConfig, Tolerance
from hfexport.export_config.builtin import config_class_for
from hfexport.export_config.probes import Probe, beam_rows
from hfexport.export_config.tasks import TASKS
from hfexport.validation.compare import compare_outputs
from hfexport.validation.readable import hidden_positions

TOLERANCE = Tolerance(1e-3, 0.0)
SIZES = {"batch": 3, "sequence": 6, "past_sequence": 2}
HIDDEN = np.array([[[False]], [[True]]])


def decoder() -> ExportConfig:
    config = AutoConfig.for_model(
        "llama", num_hidden_layers=1, hidden_size=8, num_attention_heads=2, num_key_value_heads=1, vocab_size=20
    )
    return config_class_for("llama")(config, TASKS["causal-lm-with-past"])


def asked(probe: Probe, grown: int = 0) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[np.bool_]]]:
    config = decoder()
    inputs = probe.inputs(config, "fp32")
    total = inputs["attention_mask"].shape[1] + grown
    outputs: dict[str, NDArray[Any]] = {
        "logits": np.zeros((3, inputs["input_ids"].shape[1], 20)),
        "present.0.key": np.zeros((3, 1, total, 4)),
    }
    return inputs, hidden_positions(config, probe, inputs, outputs)


@pytest.mark.parametrize("padding", ["left", "right"])
def test_rows_of_padded_tokens_are_hidden_in_logits_and_cache(padding: Any) -> None:
    inputs, hidden = asked(Probe("padded", SIZES, padding=padding))
    mask = inputs["attention_mask"]
    assert (hidden["logits"][:, :, 0] == (mask[:, -6:] == 0)).all()
    assert (hidden["present.0.key"][:, 0, :, 0] == (mask == 0)).all()


def test_nothing_is_hidden_without_padding() -> None:
    assert asked(Probe("whole", SIZES))[1] == {}


@pytest.mark.parametrize("reorders", [False, True])
def test_a_generation_hides_the_padding_of_its_prompt_in_the_cache_alone(reorders: bool) -> None:
    inputs, hidden = asked(Probe("greedy", SIZES, padding="left", greedy_steps=4, reorders=reorders), grown=3)
    mask = inputs["attention_mask"]
    mask = mask[beam_rows(3)] if reorders else mask
    assert list(hidden) == ["present.0.key"]
    assert (hidden["present.0.key"][:, 0, :8, 0] == (mask == 0)).all()
    assert not hidden["present.0.key"][:, 0, 8:].any()


def test_an_encoder_and_a_pooled_answer() -> None:
    config = AutoConfig.for_model("bert", num_hidden_layers=1, hidden_size=8, num_attention_heads=2, vocab_size=20)
    probe = Probe("padded", {"batch": 3, "sequence": 6}, padding="right")
    tokens = config_class_for("bert")(config, TASKS["token-classification"])
    pooled = config_class_for("bert")(config, TASKS["sequence-classification"])
    inputs = probe.inputs(tokens, "fp32")
    per_token = hidden_positions(tokens, probe, inputs, {"logits": np.zeros((3, 6, 2))})
    assert (per_token["logits"][:, :, 0] == (inputs["attention_mask"] == 0)).all()
    assert hidden_positions(pooled, probe, inputs, {"logits": np.zeros((3, 6))}) == {}


def test_a_hidden_value_may_differ_and_a_visible_one_may_not() -> None:
    wanted = np.ones((2, 3, 4), dtype=np.float32)
    found = wanted.copy()
    found[1] = 7.0
    assert compare_outputs("logits", found, wanted, TOLERANCE, HIDDEN).problem == ""
    assert compare_outputs("logits", found, wanted, TOLERANCE, HIDDEN).max_abs == 0.0
    found[0, 0, 0] = 7.0
    assert (
        "1 of 24 values differ too much; at [0, 0, 0]"
        in compare_outputs("logits", found, wanted, TOLERANCE, HIDDEN).problem
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_hidden_value_that_is_not_finite_is_refused(value: float) -> None:
    wanted = np.ones((2, 3, 4), dtype=np.float32)
    found = wanted.copy()
    found[1, 2, 3] = value
    assert "at [1, 2, 3]" in compare_outputs("logits", found, wanted, TOLERANCE, HIDDEN).problem


def test_finite_values_that_nobody_can_read_prove_nothing() -> None:
    wanted = np.full((2, 3, 4), np.nan, dtype=np.float32)
    wanted[1] = 1.0
    assert "nothing can be proved" in compare_outputs("logits", wanted, wanted, TOLERANCE, HIDDEN).problem
