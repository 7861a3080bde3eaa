"""Calls that are timed, and the clock: sizes within the model's limits, failures and an expired budget with reasons."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from hfexport.export_config import LAYOUTS, ExportConfig, axis_size
from hfexport.export_config.builtin import config_class_for, known_architectures
from hfexport.export_config.fixed import with_fixed_sizes
from hfexport.export_config.tasks import TASKS
from hfexport.validation.sessions import Refusal
from hfexport.validation.speed.calls import MAX_ELEMENTS, calls_for, fixed_call
from hfexport.validation.speed.clock import MAX_CALLS, OUT_OF_TIME, TIMES_FILE, WARM_UP_CALLS, read_times, time_calls

PAIRS = [(model_type, task) for model_type, cls in known_architectures().items() for task in cls.tasks]


def config_of(model_type: str, task: str, **settings: Any) -> ExportConfig:
    return config_class_for(model_type)(AutoConfig.for_model(model_type, **settings), TASKS[task])


def names(config: ExportConfig) -> list[str]:
    return [call.name for call in calls_for(config)]


@pytest.mark.parametrize(("model_type", "task"), PAIRS)
def test_every_call_is_within_the_limits(model_type: str, task: str) -> None:
    config = config_of(model_type, task)
    for graph in (branch for layout in LAYOUTS for one in config.graphs(layout) for branch in one.branches):
        calls = calls_for(graph)
        assert calls
        assert len({call.name for call in calls}) == len(calls)
        for call in calls:
            for spec in graph.inputs:
                assert all(axis_size(axis, call.probe.sizes) >= 0 for axis in spec.axes)
            for axis, limit in graph.limits.items():
                size = call.probe.sizes.get(axis, limit.minimum)
                assert limit.minimum <= size and (limit.maximum is None or size <= limit.maximum)


def test_the_process_of_an_onnx_file_imports_neither_torch_nor_transformers() -> None:
    code = "import sys, hfexport.validation.speed.artifact; print({'torch', 'transformers'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_texts_have_three_lengths_and_two_batches() -> None:
    expected = [f"batch {batch}, sequence {length}" for batch in (1, 8) for length in (32, 128, 512)]
    assert names(config_of("bert", "default")) == expected
    assert names(config_of("bert", "default", max_position_embeddings=64))[1:3] == [
        "batch 1, sequence 64",
        "batch 8, sequence 32",
    ]


def test_a_decoder_reads_prompts_and_takes_one_step_after_128_tokens() -> None:
    calls = calls_for(config_of("gpt2", "causal-lm-with-past"))
    assert [call.kind for call in calls] == ["prefill", "prefill", "prefill", "decode"] * 2
    step = calls[-1]
    assert step.name == "decode, batch 8, past 128"
    assert dict(step.probe.sizes) == {"batch": 8, "sequence": 1, "past_sequence": 128}
    assert step.tokens == 8
    assert calls[2].tokens == 512


def test_the_graphs_of_an_encoder_decoder() -> None:
    encoder, decoder = config_of("t5", "seq2seq-lm-with-past").graphs("merged")
    assert len(calls_for(encoder)) == 6
    first, later = decoder.branches
    assert names(first) == [f"prefill, batch {batch}, encoder 128, decoder 1" for batch in (1, 8)]
    assert names(later) == [f"decode, batch {batch}, past decoder 128" for batch in (1, 8)]


def test_sounds_and_images_have_their_configured_size() -> None:
    assert names(config_of("vit", "image-classification")) == ["batch 1", "batch 8"]
    encoder = config_of("whisper", "speech2seq-lm-with-past").graphs("split")[0]
    assert names(encoder) == ["batch 1", "batch 8"]
    heard = config_of("moonshine", "speech2seq-lm-with-past").graphs("split")[0]
    assert all(70_000 < call.probe.sizes["encoder_sequence"] <= 80_000 for call in calls_for(heard))


def test_calls_with_too_many_logits_have_a_reason() -> None:
    calls = calls_for(config_of("gpt2", "causal-lm-with-past", vocab_size=MAX_ELEMENTS // 1000))
    assert [bool(call.reason) for call in calls] == [False, False, False, False, False, True, True, False]
    assert "logits" in calls[5].reason


def test_fixed_sizes_are_kept() -> None:
    config = config_of("bert", "default")
    (only,) = calls_for(with_fixed_sizes(config, {"batch": 2, "sequence": 48}))
    assert (
        dict(only.probe.sizes) == {"batch": 2, "sequence": 48} == dict(fixed_call(config, only.probe.sizes).probe.sizes)
    )


def test_a_failing_call_has_a_reason_and_the_others_are_timed(tmp_path: Path) -> None:
    ran = []

    def refuse() -> object:
        raise Refusal("shapes do not fit\nsecond line")

    def calls(number: int) -> Callable[[], object]:
        return refuse if number == 1 else lambda: ran.append(number)

    time_calls([(number, lambda n=number: calls(n)) for number in range(3)], tmp_path, 60, (Refusal,))  # type: ignore[misc]
    first, second, third = read_times(tmp_path)
    assert (second.ms, second.reason) == ((), "shapes do not fit")
    assert len(first.ms) == len(third.ms) == MAX_CALLS
    assert len(ran) == 2 * (MAX_CALLS + WARM_UP_CALLS)


def test_an_expired_budget_is_said_and_nothing_runs(tmp_path: Path) -> None:
    time_calls([(0, lambda: pytest.fail("ran"))], tmp_path, -1, ())
    assert [timed.reason for timed in read_times(tmp_path)] == [OUT_OF_TIME]


def test_times_of_a_process_that_was_killed_are_read_up_to_the_last_whole_line(tmp_path: Path) -> None:
    assert read_times(tmp_path) == []
    (tmp_path / TIMES_FILE).write_text('{"call":0,"ms":[1.5]}\n{"call":1,"ms":[-1]}\nnull\n{"call":2,"ms":[1', "utf-8")
    assert [(timed.call, timed.ms) for timed in read_times(tmp_path)] == [(0, (1.5,))]
