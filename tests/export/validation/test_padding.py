"""A graph that finds the padding of prompts itself is compared with the proven one, and refused if it does not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from broken import Case, make_case
from hfexport.backends.onnx.targets import left_padding
from hfexport.backends.onnx.targets.left_padding import write_left_padded
from hfexport.cli.main import main
from hfexport.errors import ValidationError
from hfexport.validation.logits import Child
from hfexport.validation.padding import check_padding
from tiny import make_checkpoint

PAD = 3


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    yield from make_case(tmp_path_factory.mktemp("padding"), request.param, "causal-lm-with-past")


def _made(case: Case, folder: Path, pad: int) -> Path:
    return write_left_padded(case.onnx.path, folder / "model_genai.onnx", "past_key_values.0.key", pad)


def _check(case: Case, made: Path) -> None:
    check_padding(case.onnx, made, case.config, PAD, Child(made.parent / "run", os.environ, timeout_s=300))


def test_a_graph_that_finds_padding_passes(case: Case, tmp_path: Path) -> None:
    _check(case, _made(case, tmp_path, PAD))


def test_a_graph_that_looks_for_another_id_is_refused(case: Case, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"model_genai.onnx: for prompts with padding at their start it differs"):
        _check(case, _made(case, tmp_path, PAD + 1))


def test_the_proven_graph_itself_is_refused(case: Case, tmp_path: Path) -> None:
    made = tmp_path / "model_genai.onnx"
    made.write_bytes(case.onnx.path.read_bytes())
    with pytest.raises(ValidationError, match="it differs from model.onnx by"):
        _check(case, made)


def test_a_run_whose_graph_for_genai_is_wrong_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(source: Path, target: Path, key: str, pad: int) -> Path:
        return write_left_padded(source, target, key, pad + 1)

    monkeypatch.setattr(left_padding, "write_left_padded", wrong)
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "llama", "causal-lm")
    output = tmp_path / "output"
    arguments = ["--model", str(checkpoint), "--formats", "onnx", "--target", "genai", "--output", str(output)]
    assert main(arguments) == 6
    assert "model_genai.onnx: for prompts with padding at their start" in capsys.readouterr().err
    assert [path.name for path in output.iterdir()] == ["hfexport.json"]


def test_changed_weights_are_noticed(case: Case, tmp_path: Path) -> None:
    made = _made(case, tmp_path, PAD)
    model = onnx.load(made)
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    largest.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(numpy_helper.to_array(largest) * 1.01), largest.name))
    onnx.save(model, made)
    with pytest.raises(ValidationError, match="it differs"):
        _check(case, made)
