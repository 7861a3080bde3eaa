"""Variants through the command line: files, quality in the manifest, and the errors that refuse them."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from hfexport.backends.onnx.variants.names import VARIANTS
from hfexport.cli.main import main
from hfexport.manifest.entries import MANIFEST_FILE, check_manifest, listed_files
from hfexport.manifest.summary import job_summary
from tiny import make_checkpoint


def run(output: Path, *arguments: str | Path) -> tuple[int, str]:
    stderr = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(stderr):
        code = main(["--output", str(output), *map(str, arguments)])
    return code, stderr.getvalue()


def manifest_of(output: Path) -> dict[str, Any]:
    return dict(json.loads((output / MANIFEST_FILE).read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model") / "bert", "bert", "question-answering", tokenizer=True)


@pytest.fixture(scope="module")
def output(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("run") / "out"
    code, said = run(
        output, "--model", checkpoint, "--formats", "onnx", "--variants", "fp16,q8,q4", "--min-similarity", "0.5"
    )
    assert code == 0, said
    return output


def test_each_variant_is_a_file_beside_the_plain_one(output: Path) -> None:
    manifest = manifest_of(output)
    check_manifest(manifest)  # type: ignore[arg-type]
    assert [entry["name"] for entry in manifest["variants"]] == ["fp16", "q8", "q4"]
    assert [entry["paths"] for entry in manifest["variants"]] == [
        ["onnx/model_fp16.onnx"],
        ["onnx/model_quantized.onnx"],
        ["onnx/model_q4.onnx"],
    ]
    assert manifest["verdict"] == "passed"
    present = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    assert {entry["path"] for entry in listed_files(manifest)} | {MANIFEST_FILE} == present  # type: ignore[arg-type]


def test_quality_is_measured_on_the_texts_that_ship(output: Path) -> None:
    for entry in manifest_of(output)["variants"]:
        quality = entry["quality"]
        assert (quality["verdict"], quality["data"]) == ("passed", "shipped texts")
        assert quality["samples"] >= 60
        values = {measure["name"]: measure["value"] for measure in quality["measures"]}
        assert {"mean_cosine", "worst_cosine", "relative_error", "span_agreement"} <= values.keys()
        assert 0.5 <= values["mean_cosine"] < 1


def test_inputs_and_outputs_stay_float32(output: Path) -> None:
    session = onnxruntime.InferenceSession(output / "onnx/model_fp16.onnx", providers=["CPUExecutionProvider"])
    assert {value.type for value in session.get_outputs()} == {"tensor(float)"}
    ids = np.ones((2, 5), np.int64)
    answers = session.run(None, {value.name: ids for value in session.get_inputs()})
    assert {answer.dtype for answer in answers} == {np.dtype(np.float32)}


def test_the_summary_lists_variants_with_their_quality(output: Path) -> None:
    summary = job_summary(manifest_of(output))  # type: ignore[arg-type]
    for name in ("fp16", "q8", "q4"):
        assert f"| {name} |" in summary
    assert "Measured on shipped texts" in summary


def test_a_variant_below_its_threshold_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    code, said = run(
        tmp_path / "out", "--model", checkpoint, "--formats", "onnx", "--variants", "int8", "--min-similarity", "1"
    )
    assert code == 6
    assert "int8: model: mean_cosine is" in said
    assert "should be at least 1" in said
    assert "min-similarity" in said
    assert [path.name for path in (tmp_path / "out").iterdir()] == [MANIFEST_FILE]
    manifest = manifest_of(tmp_path / "out")
    check_manifest(manifest)  # type: ignore[arg-type]
    assert manifest["verdict"] == "failed"
    assert manifest["variants"][0]["quality"]["verdict"] == "failed"


def test_a_wrong_name_is_reported_with_the_list(checkpoint: Path, tmp_path: Path) -> None:
    code, said = run(tmp_path / "out", "--model", checkpoint, "--variants", "int9")
    assert code == 2
    assert "did you mean int8?" in said
    assert all(name in said for name in VARIANTS)


def test_variants_need_onnx(checkpoint: Path, tmp_path: Path) -> None:
    code, said = run(tmp_path / "out", "--model", checkpoint, "--formats", "torchscript", "--variants", "int8")
    assert code == 2
    assert "means nothing without format onnx" in said


def test_own_data_is_read_with_the_tokenizer(checkpoint: Path, tmp_path: Path) -> None:
    data = tmp_path / "reviews.jsonl"
    data.write_text("\n".join(json.dumps({"text": f"the number {number}"}) for number in range(9)), encoding="utf-8")
    code, said = run(
        *(tmp_path / "out", "--model", checkpoint, "--formats", "onnx", "--variants", "fp16"),
        *("--eval-data", data, "--min-similarity", "0.9"),
    )
    assert code == 0, said
    quality = manifest_of(tmp_path / "out")["variants"][0]["quality"]
    assert (quality["data"], quality["samples"]) == ("reviews.jsonl", 9)
