"""ONNX graphs with fixed sizes: shapes of numbers, proved at these sizes, called through the run-time helper."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from transformers import AutoModel

from hfexport.cli.main import main
from hfexport.manifest.entries import MANIFEST_FILE, check_manifest
from hfexport.runtime import load_onnx
from tiny import make_checkpoint
from tiny.seq2seq import ONE_LAYER

OF_SIZES = {"Shape", "Size", "Range", "ConstantOfShape", "NonZero", "If", "Loop"}
"""Operators that compute sizes, or have outputs of unknown size."""


SEQ2SEQ_SIZES = "batch=1\nencoder_sequence=8\ndecoder_sequence=1\npast_decoder_sequence=7"


def run(*arguments: str | Path) -> tuple[int, str]:
    stderr = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(stderr):
        code = main([*map(str, arguments)])
    return code, stderr.getvalue()


def manifest_of(output: Path) -> dict[str, Any]:
    return dict(json.loads((output / MANIFEST_FILE).read_text(encoding="utf-8")))


def shapes(path: Path) -> dict[str, list[int | str]]:
    graph = onnx.load(path).graph
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("fixed")
    checkpoint = make_checkpoint(folder / "checkpoint", "bert", "default")
    output = folder / "out"
    code, said = run("--model", checkpoint, "--output", output, "--fixed", "batch=2, sequence=16")
    assert code == 0, said
    return checkpoint, output


def test_an_encoder_has_numbers_for_sizes(exported: tuple[Path, Path]) -> None:
    _, output = exported
    path = output / "onnx" / "model.onnx"
    assert list(shapes(path).values()) == [[2, 16], [2, 16], [2, 16], [2, 16, 32]]
    assert not {node.op_type for node in onnx.load(path).graph.node} & OF_SIZES


def test_the_manifest_has_the_sizes_and_paddings(exported: tuple[Path, Path]) -> None:
    manifest = manifest_of(exported[1])
    check_manifest(manifest)  # type: ignore[arg-type]
    made, script = manifest["artifacts"]
    assert made["fixed_sizes"] == {"batch": 2, "sequence": 16} and script["fixed_sizes"] is None
    asked = made["validation"]["probes"]
    assert [probe["padding"] for probe in asked] == ["none", "right"]
    assert all(probe["sizes"] == made["fixed_sizes"] for probe in asked)
    assert len(script["validation"]["probes"]) > 3


def test_the_helper_pads_inputs_and_cuts_outputs(exported: tuple[Path, Path]) -> None:
    checkpoint, output = exported
    ids = np.arange(5, 12, dtype=np.int64)[None]
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    model = AutoModel.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        expected = model(**{name: torch.from_numpy(array) for name, array in inputs.items()}).last_hidden_state
    loaded = load_onnx(output / "onnx" / "model.onnx")
    assert loaded.description.fixed_sizes == {"batch": 2, "sequence": 16}
    np.testing.assert_allclose(loaded(**inputs)["last_hidden_state"], expected, atol=2e-5, rtol=1e-4)
    long = {name: np.repeat(array, 3, axis=1) for name, array in inputs.items()}
    with pytest.raises(ValueError, match="sequence is 21, but this artifact takes at most 16"):
        loaded(**long)


def test_verify_runs_it_at_its_sizes(exported: tuple[Path, Path]) -> None:
    checkpoint, output = exported
    code, said = run("verify", output, "--model", checkpoint)
    assert code == 0, said


@pytest.mark.parametrize(
    ("model_type", "task", "fixed", "expected"),
    [
        (
            "llama",
            "causal-lm-with-past",
            "batch=1, sequence=1, past_sequence=15",
            {"model": {"attention_mask": [1, 16], "past_key_values.0.key": [1, 2, 15, 8], "logits": [1, 1, 101]}},
        ),
        (
            "gpt2",
            "causal-lm-with-past",
            "sequence=1",
            {"model": {"input_ids": ["batch_size", 1], "attention_mask": ["batch_size", "past_sequence + sequence"]}},
        ),
        (
            "bart",
            "seq2seq-lm-with-past",
            SEQ2SEQ_SIZES,
            {
                "encoder_model": {"input_ids": [1, 8]},
                "decoder_with_past_model": {"input_ids": [1, 1], "past_key_values.0.decoder.key": [1, 4, 7, 6]},
            },
        ),
        pytest.param(
            "t5",
            "seq2seq-lm-with-past",
            SEQ2SEQ_SIZES,
            {"decoder_with_past_model": {"past_key_values.0.decoder.key": [1, 4, 7, 8]}},
            marks=pytest.mark.thorough,
        ),
    ],
)
def test_graphs_of_every_kind_can_be_fixed(
    model_type: str, task: str, fixed: str, expected: Mapping[str, Mapping[str, Any]], tmp_path: Path
) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", model_type, task, **ONE_LAYER.get(model_type, {}))
    code, said = run(
        *("--model", checkpoint, "--task", task, "--formats", "onnx"), "--output", tmp_path / "out", "--fixed", fixed
    )
    assert code == 0, said
    for graph, wanted in expected.items():
        found = shapes(tmp_path / "out" / "onnx" / f"{graph}.onnx")
        assert {name: found[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("fixed", "said"),
    [
        ("batch=1, seqence=16", "no free axis seqence: did you mean sequence? Its free axes are batch, sequence"),
        ("sequence=100000", "sequence is 100000, but this model takes at least 1 and at most"),
        ("batch=0", "batch is 0, but this model takes at least 1"),
    ],
)
def test_what_the_model_lacks_is_an_error(fixed: str, said: str, exported: tuple[Path, Path], tmp_path: Path) -> None:
    code, output = run("--model", exported[0], "--output", tmp_path / "out", "--formats", "onnx", "--fixed", fixed)
    assert code == 2 and said in output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--fixed", "batch=1", "--formats", "torchscript"), "means nothing without format onnx"),
        (("--fixed", "batch"), "must be an axis and its size, such as batch=1"),
        (("--fixed", "batch=1, batch=2"), "gives two sizes of batch"),
        (("--fixed", "batch=1", "--variants", "q8"), "exclude each other"),
    ],
)
def test_wrong_inputs_are_reported(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    code, output = run("--output", tmp_path / "out", *arguments)
    assert code == 2 and said in output
