"""Probes: drawn from a seed, within the model's limits, and at shapes that export did not see."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from transformers import AutoConfig, ViTConfig

from hfexport._internal.messages import plain, read
from hfexport.errors import CheckpointError
from hfexport.export_config import LAYOUTS, ExportConfig, Seq2SeqConfig, axis_size
from hfexport.export_config.builtin import config_class_for, known_architectures
from hfexport.export_config.probes import Probe, beam_rows, fixed_probes, make_inputs, trace_inputs, validation_probes
from hfexport.export_config.tasks import TASKS
from hfexport.export_config.windows import unasked_thresholds
from hfexport.validation.quality.messages import ModelCase

TINY = {"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2}
PAIRS = [(model_type, task) for model_type, cls in known_architectures().items() for task in cls.tasks]


def export_config(model_type: str, task: str, **settings: Any) -> ExportConfig:
    return config_class_for(model_type)(AutoConfig.for_model(model_type, **settings), TASKS[task])


def graphs(model_type: str, task: str) -> list[ExportConfig]:
    """Every graph of a pair, in any layout."""
    config = export_config(model_type, task)
    return [branch for layout in LAYOUTS for graph in config.graphs(layout) for branch in graph.branches]


@pytest.mark.parametrize(("model_type", "task"), PAIRS)
def test_every_probe_is_within_the_limits_and_asks_what_export_did_not_see(model_type: str, task: str) -> None:
    for config in graphs(model_type, task):
        probes = validation_probes(config)
        free = [axis for axis in config.trace_sizes if axis in config.free_axes]
        for axis, limit in config.limits.items():
            for probe in probes:
                size = probe.sizes.get(axis, limit.minimum)
                assert limit.minimum <= size and (limit.maximum is None or size <= limit.maximum)
        for axis in free:
            asked = {probe.sizes[axis] for probe in probes if not probe.greedy_steps}
            assert asked - {config.trace_sizes[axis]}, axis
        assert len({probe.name for probe in probes}) == len(probes)


@pytest.mark.parametrize(("model_type", "task"), PAIRS)
def test_a_probe_through_json_is_the_same_question(model_type: str, task: str) -> None:
    config = graphs(model_type, task)[-1]
    for probe in validation_probes(config):
        case = ModelCase(probe=probe, real=False)
        again = read(json.loads(json.dumps(plain(case))), ModelCase).probe
        assert again == probe
    first, second = probe.inputs(config, "fp32"), again.inputs(config, "fp32")
    for spec in (config.prompt if probe.greedy_steps else config).inputs:
        assert first[spec.name].shape == tuple(axis_size(axis, probe.sizes) for axis in spec.axes)
        assert first[spec.name].dtype == (np.int64 if spec.dtype == "int64" else np.float32)
        assert np.array_equal(first[spec.name], second[spec.name])


def test_padding_is_of_another_length_in_every_row() -> None:
    config = export_config("bert", "masked-lm")
    mask = make_inputs(config, {"batch": 3, "sequence": 9}, "fp32", padding="right")["attention_mask"]
    assert mask.sum(axis=1).tolist() == [9, 6, 3]
    assert (np.diff(mask, axis=1) <= 0).all()
    left = make_inputs(config, {"batch": 3, "sequence": 9}, "fp32", padding="left")["attention_mask"]
    assert np.array_equal(left, mask[:, ::-1])
    ids = make_inputs(config, {"batch": 3, "sequence": 9}, "fp32", padding="right")["input_ids"]
    assert (ids[mask == 0] == 0).all() and (ids[mask == 1] != 0).all()


def test_a_single_row_is_padded_too() -> None:
    config = export_config("bert", "masked-lm")
    mask = make_inputs(config, {"batch": 1, "sequence": 9}, "fp32", padding="right")["attention_mask"]
    assert mask.tolist() == [[1, 1, 1, 1, 1, 1, 0, 0, 0]]
    single = make_inputs(config, {"batch": 1, "sequence": 1}, "fp32", padding="right")["attention_mask"]
    assert single.tolist() == [[1]]


def test_the_example_of_a_trace_is_padded_even_where_a_batch_is_one() -> None:
    config = export_config("gpt2", "sequence-classification")
    assert config.trace_sizes["batch"] == 1
    assert 0 in trace_inputs(config, "fp32")["attention_mask"]


def test_edge_tokens_are_asked_in_unmasked_places() -> None:
    config = export_config("roberta", "masked-lm", vocab_size=50)
    probe = next(probe for probe in validation_probes(config) if probe.edge_tokens)
    inputs = probe.inputs(config, "fp32")
    shown = inputs["input_ids"][inputs["attention_mask"] == 1]
    assert {0, 1, 49} <= set(shown.tolist())


def test_positions_count_what_is_not_padding() -> None:
    config = export_config("gpt2", "causal-lm-with-past", **TINY)
    sizes = {"batch": 2, "sequence": 3, "past_sequence": 3}
    inputs = make_inputs(config, sizes, "fp32", padding="left")
    assert inputs["attention_mask"].tolist() == [[1] * 6, [0, 0, 1, 1, 1, 1]]
    assert inputs["position_ids"].tolist() == [[3, 4, 5], [1, 2, 3]]


@pytest.mark.parametrize(("model_type", "last"), [("gpt2", 1023), ("llama", 2047)])
def test_a_decoder_is_asked_at_its_last_position(model_type: str, last: int) -> None:
    config = export_config(model_type, "causal-lm-with-past", num_hidden_layers=1)
    probe = next(probe for probe in validation_probes(config) if probe.last_positions)
    positions = probe.inputs(config, "fp32")["position_ids"]
    assert positions[0, -1] == last
    assert (np.diff(positions) == 1).all()


def test_an_encoder_is_asked_at_its_last_position() -> None:
    assert max(probe.sizes["sequence"] for probe in validation_probes(export_config("bert", "default"))) == 512
    assert max(probe.sizes["sequence"] for probe in validation_probes(export_config("roberta", "default"))) == 510


def test_a_decoder_is_asked_on_the_far_side_of_its_window() -> None:
    config = export_config("gpt_neo", "causal-lm-with-past", window_size=20)
    beyond = [probe for probe in validation_probes(config) if sum(probe.sizes.values()) - probe.sizes["batch"] > 20]
    assert any(probe.sizes["past_sequence"] == 0 and probe.sizes["sequence"] > 40 for probe in beyond)
    assert any(probe.sizes["past_sequence"] > 20 and probe.sizes["sequence"] == 1 for probe in beyond)
    everywhere = export_config("gpt_neo", "causal-lm-with-past", attention_types=[[["global"], 24]])
    assert not everywhere.thresholds


def test_a_decoder_is_asked_on_the_far_side_of_a_dynamic_rope() -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    config = export_config("llama", "causal-lm-with-past", max_position_embeddings=64, rope_parameters=rope)
    probes = validation_probes(config)
    assert config.thresholds == {"past_sequence": 64}
    assert config.limits["sequence"].maximum == 128
    assert {128} <= {probe.sizes["sequence"] + probe.sizes["past_sequence"] for probe in probes}
    assert any(probe.sizes["past_sequence"] > 64 for probe in probes)


def test_a_decoder_is_asked_edge_tokens_in_the_order_of_its_rows() -> None:
    probes = validation_probes(export_config("llama", "causal-lm-with-past"))
    assert any(probe.edge_tokens for probe in probes)
    assert all(probe.greedy_steps for probe in probes if probe.reorders)


def test_a_decoder_without_positions_has_no_last_one() -> None:
    config = export_config("bloom", "causal-lm-with-past")
    assert config.max_positions is None
    assert "position_ids" not in [spec.name for spec in config.inputs]
    assert not any(probe.last_positions for probe in validation_probes(config))


def test_boxes_lie_on_the_page_and_languages_are_known() -> None:
    layout = export_config("layoutlm", "default", max_2d_position_embeddings=50)
    boxes = make_inputs(layout, {"batch": 2, "sequence": 9}, "fp32")["bbox"]
    assert boxes.shape == (2, 9, 4) and boxes.min() == 0 and boxes.max() == 49
    assert (boxes[..., :2] <= boxes[..., 2:]).all()
    multilingual = export_config("xlm", "default", n_langs=3)
    assert set(make_inputs(multilingual, {"batch": 2, "sequence": 9}, "fp32")["langs"].ravel()) == {0, 1, 2}
    assert "langs" not in [spec.name for spec in export_config("xlm", "default").inputs]


def test_a_decoder_that_generates_is_driven_by_its_own_past() -> None:
    probes = validation_probes(export_config("llama", "causal-lm-with-past"))
    greedy = [probe for probe in probes if probe.greedy_steps]
    asked = [(probe.greedy_steps, probe.reorders, probe.padding, probe.sizes["past_sequence"]) for probe in greedy]
    assert asked == [(16, False, "left", 0), (6, True, "left", 0)]
    assert not any(probe.greedy_steps for probe in validation_probes(export_config("llama", "default-with-past")))


def test_probes_of_a_fixed_artifact_differ_in_values_and_padding_alone() -> None:
    sizes = {"batch": 1, "sequence": 8}
    config = export_config("bert", "default")
    probes = fixed_probes(config, sizes)
    assert [dict(probe.sizes) for probe in probes] == [sizes] * len(probes)
    masks = {probe.padding: probe.inputs(config, "fp32")["attention_mask"].sum() for probe in probes}
    assert masks == {"none": 8, "right": 6}


def test_a_fixed_image_is_asked_with_other_values() -> None:
    config = export_config("vit", "image-classification", image_size=32, patch_size=8)
    first, second = (probe.inputs(config, "fp32")["pixel_values"] for probe in fixed_probes(config, {"batch": 2}))
    assert first.shape == second.shape == (2, 3, 32, 32)
    assert not np.array_equal(first, second)


def test_floating_inputs_have_the_exports_dtype() -> None:
    config = export_config("vit", "default", image_size=32)
    assert trace_inputs(config, "fp16")["pixel_values"].dtype == np.float16


def test_both_halves_of_an_encoder_decoder_are_padded_each_along_its_own_axis() -> None:
    (config,) = export_config("bart", "seq2seq-lm").graphs("single")
    inputs = make_inputs(config, {"batch": 3, "encoder_sequence": 9, "decoder_sequence": 6}, "fp32", padding="right")
    assert inputs["attention_mask"].sum(axis=1).tolist() == [9, 6, 3]
    assert inputs["decoder_attention_mask"].sum(axis=1).tolist() == [6, 4, 2]
    pad = config.config.pad_token_id
    assert np.array_equal(inputs["input_ids"] == pad, inputs["attention_mask"] == 0)
    assert np.array_equal(inputs["decoder_input_ids"] == pad, inputs["decoder_attention_mask"] == 0)


def test_a_cache_of_an_encoder_of_one_length_is_whole_or_empty() -> None:
    (config,) = export_config("whisper", "speech2seq-lm-with-past", max_source_positions=12).graphs("single")
    assert {probe.sizes["past_encoder_sequence"] for probe in validation_probes(config)} == {0, 12}


@pytest.mark.parametrize("padding", ["none", "right", "left"])
def test_every_sentence_ends_once(padding: Any) -> None:
    (config,) = export_config("bart", "sequence-classification", vocab_size=5).graphs("split")
    sizes = {"batch": 3, "encoder_sequence": 12}
    inputs = make_inputs(config, sizes, "fp32", padding=padding, edge_tokens=True)
    ends = inputs["input_ids"] == config.config.eos_token_id
    assert ends.sum(axis=1).tolist() == [1, 1, 1]
    last = 11 - np.argmax(inputs["attention_mask"][:, ::-1], axis=1)
    assert np.array_equal(ends.argmax(axis=1), last)


def test_rows_change_places_as_in_a_beam_search() -> None:
    assert [beam_rows(batch) for batch in (1, 2, 3, 5)] == [[0], [1, 0], [2, 0, 0], [4, 0, 0, 1, 1]]


def test_generation_starts_from_what_the_encoder_takes() -> None:
    *_, last = export_config("t5", "seq2seq-lm-with-past").graphs("split")
    probe, _ = [probe for probe in validation_probes(last) if probe.greedy_steps]
    assert list(probe.inputs(last, "fp32")) == ["input_ids", "attention_mask"]
    (whole,) = export_config("t5", "seq2seq-lm-with-past").graphs("single")
    probe, _ = [probe for probe in validation_probes(whole) if probe.greedy_steps]
    inputs = probe.inputs(whole, "fp32")
    assert inputs["decoder_input_ids"].tolist() == [[whole.start_token]] * 3
    assert inputs["past_key_values.0.encoder.key"].shape[2] == 0


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_decoder_is_asked_tokens_of_its_own_vocabulary(number: int) -> None:
    sizes = {"vocab_size": 900, "decoder_vocab_size": 9, "pad_token_id": 8}
    family = export_config("marian", "seq2seq-lm-with-past", **sizes)
    assert isinstance(family, Seq2SeqConfig)
    encoder, decoder, whole = (*family.graphs("split")[:2], *family.graphs("single"))
    graph, name, size = [(encoder, "input_ids", 900), (decoder, "input_ids", 9), (whole, "decoder_input_ids", 9)][
        number
    ]
    drawn = make_inputs(graph, {**graph.trace_sizes, "decoder_sequence": 50}, "fp32")[name]
    assert graph.vocabulary_of(name) == size
    assert size / 2 < drawn.max() < size


def test_a_class_gives_its_own_probes_within_its_limits() -> None:
    class Own(config_class_for("bert")):
        def probes(self) -> list[Probe]:
            return [
                Probe("", {"batch": 1, "sequence": 4000}, "none", 1),
                Probe("", {"batch": 2, "sequence": 3}, "none", 2),
            ]

    config = Own(AutoConfig.for_model("bert"), TASKS["default"])
    assert [probe.name for probe in validation_probes(config)] == ["batch 1, sequence 512", "batch 2, sequence 3"]


def test_inputs_of_absurd_sizes_are_refused_before_memory_is_taken() -> None:
    config = config_class_for("vit")(ViTConfig(num_channels=2**40), TASKS["image-classification"])
    with pytest.raises(CheckpointError, match=r"config\.json: describes a model whose input pixel_values"):
        make_inputs(config, config.trace_sizes, "fp32")
    config = config_class_for("vit")(ViTConfig(), TASKS["image-classification"])
    assert make_inputs(config, {**config.trace_sizes, "batch": 1}, "fp32")


@pytest.mark.parametrize(("heads", "asked"), [(2, True), (512, False)])
def test_a_long_window_is_exceeded_where_the_cache_is_small(heads: int, asked: bool) -> None:
    settings = {**TINY, "head_dim": 8, "hidden_size": 512, "num_attention_heads": heads}
    settings["num_key_value_heads"] = heads
    config = export_config("llama", "causal-lm-with-past", **settings, max_position_embeddings=8192)
    assert "past 4099" not in " ".join(probe.name for probe in validation_probes(config))
    config.config.sliding_window = 4096
    probes = validation_probes(config)
    long = [dict(probe.sizes) for probe in probes if probe.sizes["past_sequence"] > 4096]
    assert long == ([{"batch": 1, "sequence": 1, "past_sequence": 4099}] if asked else [])
    declared = unasked_thresholds(config, [probe.sizes for probe in probes])
    assert declared == ({} if asked else {"sliding_window": 4096})
