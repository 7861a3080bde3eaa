"""Models said in another way for tracers: equal to themselves on both sides of every length at which they change."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from hfexport.backends.patches import model_patches, model_types
from hfexport.export_config import ExportConfig
from hfexport.export_config.builtin import config_class_for
from hfexport.export_config.probes import make_inputs, trace_inputs, validation_probes
from hfexport.export_config.tasks import TASKS
from hfexport.modeling.load import FlatModel, load_model
from hfexport.modeling.traceable import make_traceable
from hfexport.validation.reference.state import ModelState
from tiny import make_checkpoint

CASES = [
    ("longformer", "default", {}),
    ("big_bird", "default", {}),
    ("llama", "default", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 3.0}}),
    ("big_bird", "question-answering", {"num_random_blocks": 2, "block_size": 3}),
]


def _config(checkpoint: Path, model_type: str, task: str) -> ExportConfig:
    return config_class_for(model_type)(AutoConfig.from_pretrained(checkpoint), TASKS[task])


def _flat(checkpoint: Path, config: ExportConfig) -> FlatModel:
    """A model of its own, for one call: BigBird is another model after a short input."""
    names = [spec.name for spec in config.inputs], [spec.name for spec in config.outputs]
    return FlatModel(load_model(checkpoint, config, "fp32"), *names)


def _off(found: tuple[torch.Tensor, ...], wanted: tuple[torch.Tensor, ...]) -> float:
    return max(float((left - right).abs().max()) for left, right in zip(found, wanted, strict=True))


@pytest.mark.parametrize(("model_type", "task", "changes"), CASES)
@torch.inference_mode()
def test_it_answers_as_the_model_does(model_type: str, task: str, changes: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path, model_type, task, **changes)
    config = _config(checkpoint, model_type, task)
    traceable = _flat(checkpoint, config)
    make_traceable(traceable.model)
    lengths = set()
    for probe in validation_probes(config):
        tensors = [torch.from_numpy(array) for array in probe.inputs(config, "fp32").values()]
        assert _off(traceable(*tensors), _flat(checkpoint, config)(*tensors)) < 1e-5, probe.name
        lengths.add(probe.sizes["sequence"])
    threshold = config.thresholds["sequence"]
    assert min(lengths) < threshold < max(lengths)


@pytest.mark.parametrize("model_type", ["longformer", "big_bird"])
def test_a_trace_of_the_model_itself_is_wrong_past_the_threshold(model_type: str, tmp_path: Path) -> None:
    """What the replacements are for; where this fails, one of them can go."""
    checkpoint = make_checkpoint(tmp_path, model_type, "default")
    config = _config(checkpoint, model_type, "default")
    example = tuple(torch.from_numpy(array) for array in trace_inputs(config, "fp32").values())
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(_flat(checkpoint, config), example, check_trace=False)  # type: ignore[no-untyped-call]
        sizes = {"batch": 2, "sequence": 2 * config.thresholds["sequence"] + 5}
        tensors = [torch.from_numpy(array) for array in make_inputs(config, sizes, "fp32", padding="right").values()]
        try:
            off = _off(traced(*tensors), _flat(checkpoint, config)(*tensors))
        except RuntimeError:
            off = np.inf
    assert off > 1e-3


def test_other_models_stay_as_they_are(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path, "roberta", "default")
    model = load_model(checkpoint, _config(checkpoint, "roberta", "default"), "fp32")
    classes = [type(module) for module in model.modules()]
    make_traceable(model)
    assert [type(module) for module in model.modules()] == classes


@pytest.mark.parametrize("length", [1, 2, 3, 5, 6, 13])
@torch.inference_mode()
def test_longt5_attends_to_blocks_as_it_did(length: int, tmp_path: Path) -> None:
    """Blocks of 5 tokens and sums of 3: none, one and several of either."""
    changes = {"encoder_attention_type": "transient-global"}
    checkpoint = make_checkpoint(tmp_path, "longt5", "seq2seq-lm", **changes)
    encoder = load_model(checkpoint, _config(checkpoint, "longt5", "seq2seq-lm"), "fp32").get_encoder()  # type: ignore[operator]
    ids = torch.arange(2 * length).reshape(2, length) + 5
    mask = torch.ones_like(ids)
    mask[1, length // 2 + 1 :] = 0
    wanted = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    with model_patches("longt5"):
        found = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    assert _off((found,), (wanted,)) < 1e-5


@torch.inference_mode()
@pytest.mark.parametrize("types", [("bart",), ("florence2", "bart")])
def test_a_trace_in_half_precision_clamps_what_overflows(types: tuple[str, ...], tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path, "bart", "seq2seq-lm")
    encoder = load_model(checkpoint, _config(checkpoint, "bart", "seq2seq-lm"), "fp16").get_encoder()  # type: ignore[operator]
    layer = encoder.layers[0]
    states = torch.linspace(-1, 1, 24, dtype=torch.float16).reshape(1, 1, 24).repeat(1, 3, 1)
    mask = torch.zeros(1, 1, 3, 3, dtype=torch.float16)
    with warnings.catch_warnings(), model_patches(*types):
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(layer, (states, mask), check_trace=False)  # type: ignore[no-untyped-call]
    assert torch.equal(traced(states, mask), layer(states, mask))
    # A trace holds the parameters of what it was made of.
    layer.final_layer_norm.weight.fill_(torch.finfo(torch.float16).max)
    overflown = layer(states, mask)
    assert overflown.isfinite().all() and overflown.abs().max() > 6e4
    assert torch.equal(traced(states, mask), overflown)


@torch.inference_mode()
def test_a_reference_forgets_earlier_calls(tmp_path: Path) -> None:
    """A dynamic rotary embedding keeps the frequencies of the longest text, until one comes that is short enough."""
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    checkpoint = make_checkpoint(tmp_path, "llama", "default", max_position_embeddings=8, rope_parameters=rope)
    model = load_model(checkpoint, _config(checkpoint, "llama", "default"), "fp32")
    short, long = (torch.arange(length)[None] + 3 for length in (10, 30))
    state = ModelState(model)
    alone = model(short).last_hidden_state
    model(long)
    assert (model(short).last_hidden_state - alone).abs().max() > 1e-3
    state.restore()
    assert torch.equal(model(short).last_hidden_state, alone)


def test_the_types_of_the_models_within_a_model_are_known() -> None:
    config = AutoConfig.for_model("florence2", text_config={"model_type": "bart"})
    assert model_types(config)[0] == "florence2"
    assert "bart" in model_types(config)


@pytest.mark.parametrize("model_type", ["led", "nllb-moe", "switch_transformers"])
@torch.inference_mode()
def test_encoder_decoders_answer_as_before(model_type: str, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path, model_type, "auto")
    wanted = AutoModelForSeq2SeqLM.from_pretrained(checkpoint).eval()
    found = AutoModelForSeq2SeqLM.from_pretrained(checkpoint).eval()
    make_traceable(found)
    for length in (1, 5, 8, 21):  # within the window of 8, at it, and beyond it
        ids = torch.randint(3, 100, (2, length), generator=torch.Generator().manual_seed(length))
        mask = torch.ones_like(ids)
        mask[1, -(-length // 2) :] = 0
        inputs = {"input_ids": ids.masked_fill(mask == 0, 1), "attention_mask": mask, "decoder_input_ids": ids[:, :4]}
        assert _off((found(**inputs).logits,), (wanted(**inputs).logits,)) < 1e-5, length


@torch.inference_mode()
def test_global_tokens_of_an_led_attend_to_all(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path, "led", "auto")
    wanted = AutoModelForSeq2SeqLM.from_pretrained(checkpoint).eval()
    found = AutoModelForSeq2SeqLM.from_pretrained(checkpoint).eval()
    make_traceable(found)
    ids = torch.randint(3, 100, (1, 21), generator=torch.Generator().manual_seed(0))
    tokens = torch.zeros_like(ids)
    tokens[:, :2] = 1
    inputs = {"input_ids": ids, "global_attention_mask": tokens, "decoder_input_ids": ids[:, :4]}
    logits = found(**inputs).logits
    assert _off((logits,), (wanted(**inputs).logits,)) < 1e-5
    inputs["global_attention_mask"] = torch.zeros_like(ids)
    assert _off((logits,), (wanted(**inputs).logits,)) > 1e-3
