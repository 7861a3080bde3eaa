"""Validation says yes to artifacts that are right, and no to each that is wrong in one way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from broken import (
    METADATA,
    Case,
    Cut,
    Remembering,
    Three,
    add_input,
    bake_sequence,
    break_at_run_time,
    cast_output,
    drop_input,
    drop_output,
    edited,
    flat_model,
    ignore_mask,
    ignore_past,
    make_case,
    narrow_input,
    put_one_nan,
    scale_one_matrix,
    swap_outputs,
    traced,
)
from hfexport.backends.base import Artifact, ExportJob
from hfexport.backends.torchscript.backend import TorchScriptBackend
from hfexport.export_config.probes import validation_probes
from hfexport.modeling.load import load_model
from hfexport.runtime import DESCRIPTION_FILE
from hfexport.validation import resolve_tolerance, validate
from hfexport.validation.arrays import read_arrays
from hfexport.validation.sessions import Expected, OnnxSession
from tiny import make_checkpoint


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    """BERT for question answering: two outputs of one shape, a mask, token types."""
    yield from make_case(tmp_path_factory.mktemp("answers"), "bert", "question-answering")


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    """GPT-2 with past."""
    yield from make_case(tmp_path_factory.mktemp("decoder"), "gpt2", "causal-lm-with-past")


# What is right passes.


@pytest.mark.parametrize("format_name", ["onnx", "torchscript"])
@pytest.mark.parametrize("which", ["answers", "decoder"])
def test_a_right_artifact_passes(which: str, format_name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    case: Case = request.getfixturevalue(which)
    artifact = case.onnx
    if format_name == "torchscript":
        job = ExportJob(case.checkpoint, case.config, "fp32", tmp_path, METADATA)
        artifact = TorchScriptBackend().export(job)
    verdict = case.judge(artifact, tmp_path)
    assert verdict.failures == ()
    assert verdict.verdict == "passed"
    assert verdict.session == "default"
    assert [result.probe for result in verdict.probes] == list(validation_probes(case.config))
    assert verdict.max_abs is not None and verdict.max_abs < 2e-5
    for result in verdict.probes:
        compared = [output.name for output in result.outputs]
        declared = [spec.name for spec in case.config.outputs]
        assert compared == (["tokens", *declared] if result.probe.greedy_steps else declared)
    assert not (tmp_path / "run" / "outputs").exists()


def test_the_reference_decodes_as_generate_does(decoder: Case) -> None:
    decoder.reference.worker.result()
    number, probe = next((n, probe) for n, probe in enumerate(decoder.reference.probes) if probe.greedy_steps)
    inputs = read_arrays(decoder.reference.folder / "inputs" / str(number))
    outputs = read_arrays(decoder.reference.folder / "outputs" / str(number))
    assert probe.padding == "left" and 0 in inputs["attention_mask"]
    model: Any = load_model(decoder.checkpoint, decoder.config, "fp32")
    generated = model.generate(
        torch.tensor(inputs["input_ids"]),
        attention_mask=torch.tensor(inputs["attention_mask"]),
        max_new_tokens=probe.greedy_steps,
        min_new_tokens=probe.greedy_steps,
        do_sample=False,
        eos_token_id=None,
        output_logits=True,
        return_dict_in_generate=True,
    )
    prompt = inputs["input_ids"].shape[1]
    assert generated.sequences[:, prompt:].tolist() == outputs["tokens"].tolist()
    np.testing.assert_allclose(torch.stack(generated.logits, 1), outputs["logits"], atol=1e-6)
    assert len(set(outputs["tokens"].flatten().tolist())) > 2


def test_a_frugal_session_answers_like_a_default_one(answers: Case) -> None:
    answers.reference.worker.result()
    inputs = [(spec.name, "int64") for spec in answers.config.inputs]
    expected = Expected(answers.onnx.path, inputs, [spec.name for spec in answers.config.outputs])
    question = read_arrays(answers.reference.folder / "inputs" / "1")
    default, frugal = OnnxSession(expected, 1, 1), OnnxSession(expected, 1 << 60, 1)
    assert (default.kind, frugal.kind) == ("default", "frugal")
    for name, answer in frugal.ask(question).items():
        np.testing.assert_allclose(answer, default.ask(question)[name], atol=1e-5)


# What is wrong does not.


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (scale_one_matrix, "values differ too much"),
        (ignore_mask, "right padding: start_logits"),
        (bake_sequence, "the artifact refused it"),
        (swap_outputs, "start_logits: "),
        (put_one_nan, "at [0, 0] it is nan; the model gives"),
        (cast_output(TensorProto.FLOAT16), "end_logits: dtype is float16; the model gives float32"),
        (cast_output(TensorProto.INT64), "end_logits: dtype is int64; the model gives float32"),
        (drop_output, "missing: end_logits"),
        (drop_input, "missing: token_type_ids"),
        (add_input, "unknown: head_mask"),
        (narrow_input, "input_ids is tensor(int32), should be int64"),
        (break_at_run_time, "the artifact refused it"),
    ],
    ids=lambda value: getattr(value, "__name__", "") if callable(value) else "",
)
def test_a_wrong_encoder_fails(
    edit: Callable[[onnx.ModelProto], None], message: str, answers: Case, tmp_path: Path
) -> None:
    verdict = answers.judge(edited(answers, tmp_path, edit), tmp_path)
    assert verdict.verdict == "failed"
    assert any(message in line for line in verdict.failures), verdict.failures


def test_a_lost_mask_shows_only_where_there_is_padding(answers: Case, tmp_path: Path) -> None:
    verdict = answers.judge(edited(answers, tmp_path, ignore_mask), tmp_path)
    assert {result.probe.padding for result in verdict.probes if not result.passed} == {"right"}
    assert {result.probe.padding for result in verdict.probes if result.passed} == {"none"}


def test_one_nan_is_one_failure_in_one_place(answers: Case, tmp_path: Path) -> None:
    verdict = answers.judge(edited(answers, tmp_path, put_one_nan), tmp_path)
    failed = [output for result in verdict.probes for output in result.outputs if output.problem]
    assert {output.name for output in failed} == {"start_logits"}
    assert all(output.worst is not None and output.worst.index == (0, 0) for output in failed)


def test_weights_of_another_checkpoint_fail(answers: Case, tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "other", "bert", "question-answering", seed=1)
    verdict = answers.judge(traced(answers, tmp_path, flat_model(answers, other)), tmp_path)
    assert verdict.verdict == "failed"
    assert not any(result.passed for result in verdict.probes)


def test_a_silently_baked_length_fails_past_it(answers: Case, tmp_path: Path) -> None:
    verdict = answers.judge(traced(answers, tmp_path, Cut(flat_model(answers), 7)), tmp_path)
    assert verdict.verdict == "failed"
    assert all(result.passed == (result.probe.sizes["sequence"] <= 7) for result in verdict.probes)


def test_an_artifact_that_remembers_its_calls_fails_at_the_first_probe(answers: Case, tmp_path: Path) -> None:
    verdict = answers.judge(traced(answers, tmp_path, Remembering(flat_model(answers))), tmp_path)
    assert verdict.verdict == "failed"
    assert [result.passed for result in verdict.probes] == [False, *[True] * (len(verdict.probes) - 1)]
    assert any("run again after all others" in line for line in verdict.failures)


def test_an_ignored_past_fails(decoder: Case, tmp_path: Path) -> None:
    verdict = decoder.judge(edited(decoder, tmp_path, ignore_past), tmp_path)
    assert verdict.verdict == "failed"
    for result in verdict.probes:
        relies_on_past = result.probe.sizes["past_sequence"] > 0 or result.probe.greedy_steps > 0
        assert result.passed != relies_on_past, result.probe.name


def test_a_scaled_matrix_fails_in_greedy_decoding_too(decoder: Case, tmp_path: Path) -> None:
    verdict = decoder.judge(edited(decoder, tmp_path, scale_one_matrix), tmp_path)
    assert verdict.verdict == "failed"
    assert not any(result.passed for result in verdict.probes)


def test_a_tighter_tolerance_than_can_be_kept_fails(answers: Case, tmp_path: Path) -> None:
    tolerance = resolve_tolerance(answers.config, "fp32", 1e-12, None)
    verdict = validate(
        answers.onnx,
        answers.config,
        answers.reference,
        tolerance,
        folder=tmp_path,
        env=os.environ,
        timeout_s=900.0,
        by_precision=False,
    )
    assert verdict.verdict == "failed"
    assert any("allowed: 1e-12 + 0 *" in line for line in verdict.failures)


def test_an_undescribed_output_fails(answers: Case, tmp_path: Path) -> None:
    verdict = answers.judge(traced(answers, tmp_path, Three(flat_model(answers))), tmp_path)
    assert verdict.verdict == "failed"
    assert all("it gives 3 outputs, and describes 2" in result.problem for result in verdict.probes)


def test_a_truncated_file_fails(answers: Case, tmp_path: Path) -> None:
    for format_name, name in (("onnx", "model.onnx"), ("torchscript", "model.pt")):
        path = tmp_path / name
        path.write_bytes(answers.onnx.path.read_bytes()[:5000])
        verdict = answers.judge(Artifact(format_name, path, (path,)), tmp_path / format_name)
        assert verdict.verdict == "failed"
        assert f"{name}: " in verdict.reason and "cannot load it" in verdict.reason


def test_a_torchscript_file_without_its_description_fails(answers: Case, tmp_path: Path) -> None:
    artifact = traced(answers, tmp_path, flat_model(answers))
    module = torch.jit.load(str(artifact.path))  # type: ignore[no-untyped-call]
    torch.jit.save(module, str(artifact.path))
    verdict = answers.judge(artifact, tmp_path)
    assert verdict.verdict == "failed"
    assert f"its extra file {DESCRIPTION_FILE}" in verdict.reason


# Fresh processes hold only what they need.


@pytest.mark.parametrize(
    ("format_name", "absent"), [("onnx", ["torch", "transformers"]), ("torchscript", ["transformers"])]
)
def test_a_runner_loads_only_what_the_format_needs(
    format_name: str, absent: list[str], answers: Case, tmp_path: Path
) -> None:
    artifact = answers.onnx if format_name == "onnx" else traced(answers, tmp_path, flat_model(answers))
    assert answers.judge(artifact, tmp_path).verdict == "passed"
    program = (
        "import json, sys\n"
        "from hfexport.validation import runner\n"
        "runner.run(json.load(open(sys.argv[1]))['job'])\n"
        f"print([name for name in {absent!r} if name in sys.modules])"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "run" / "job.json")]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    assert result.stdout.strip() == "[]"
