"""Variants through the command line: files, quality in the manifest, and the errors that refuse them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

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
    assert "int8, which means nothing without format onnx" in said


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


def test_verify_measures_variants_again(output: Path, checkpoint: Path, tmp_path: Path) -> None:
    """A variant whose file was changed fails, although the manifest has the new file's hash."""
    copy = tmp_path / "copy"
    shutil.copytree(output, copy)
    assert _verify(copy, checkpoint) == 0
    path = copy / "onnx/model_quantized.onnx"
    model = onnx.load(path)
    scales = next(
        tensor for tensor in model.graph.initializer if tensor.name.endswith("intermediate.dense.weight_scales_1")
    )
    scales.raw_data = (numpy_helper.to_array(scales) * 2).tobytes()
    onnx.save(model, path)
    assert _verify(copy, checkpoint) == 6
    manifest = manifest_of(copy)
    (entry,) = [entry for entry in manifest["variants"] if entry["name"] == "q8"]
    data = path.read_bytes()
    entry["files"][0] |= {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (copy / MANIFEST_FILE).write_text(json.dumps(manifest), encoding="utf-8")
    assert _verify(copy, checkpoint) == 6


def _verify(export: Path, checkpoint: Path) -> int:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return main(["verify", str(export), "--model", str(checkpoint), "--min-similarity", "0.5"])


@pytest.mark.thorough
def test_every_graph_of_an_encoder_decoder_gets_its_variant(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "t5", "t5", "seq2seq-lm-with-past", tokenizer=True)
    names = "O2,fused,int8,q4f16"
    code, said = run(
        *(tmp_path / "out", "--model", checkpoint, "--formats", "onnx", "--variants", names),
        *("--min-similarity", "0.5"),
    )
    assert code == 0, said
    for entry in manifest_of(tmp_path / "out")["variants"]:
        suffix = entry["name"]
        assert entry["paths"] == [f"onnx/{graph}_{suffix}.onnx" for graph in ("encoder_model", "decoder_model_merged")]
        graphs = {measure["graph"] for measure in entry["quality"]["measures"]}
        assert graphs >= {"encoder_model", "decoder_with_past_model"}
        greedy = [measure for measure in entry["quality"]["measures"] if measure["name"] == "greedy_agreement"]
        assert greedy[0]["value"] > 0.5


def test_a_decoder_keeps_its_tied_embedding_once(tmp_path: Path) -> None:
    """4-bit tables of a tied embedding are stored once, for the lookup and for the product."""
    checkpoint = make_checkpoint(
        *(tmp_path / "llama", "llama", "causal-lm-with-past"), tokenizer=True, hidden_size=64, tie_word_embeddings=True
    )
    code, said = run(
        *(tmp_path / "out", "--model", checkpoint, "--formats", "onnx", "--variants", "q4,int8"),
        *("--min-similarity", "0.1"),
    )
    assert code == 0, said
    model = onnx.load(tmp_path / "out/onnx/model_q4.onnx")
    names = ("embed_tokens", "lm_head")
    stored = [tensor.name for tensor in model.graph.initializer if any(name in tensor.name for name in names)]
    (table,) = [name for name in stored if name.endswith("nibbles_rows")]
    assert table.removesuffix("_nibbles_rows") not in stored
    assert any(node.op_type == "GatherBlockQuantized" for node in model.graph.node)
    measured = {measure["name"] for measure in manifest_of(tmp_path / "out")["variants"][0]["quality"]["measures"]}
    assert {"kl_divergence", "perplexity", "perplexity_ratio", "greedy_agreement", "weight_error"} <= measured
