"""Whisper's graphs for ONNX Runtime GenAI are compared with the proven ones, and refused if they answer something else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hfexport.backends.onnx.targets import cross_attention
from hfexport.backends.onnx.targets.cross_attention import write_decoder, write_encoder
from hfexport.cli.main import main
from tiny import make_checkpoint

TASK = "speech2seq-lm-with-past"


def _asked(checkpoint: Path, output: Path, *more: str) -> list[str]:
    asked = ["--model", str(checkpoint), "--task", TASK, "--formats", "onnx", "--target", "genai"]
    return [*asked, "--output", str(output), *more]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("divided") / "checkpoint"
    return make_checkpoint(folder, "whisper", TASK, max_source_positions=1500, encoder_layers=1, decoder_layers=2)


def _forge(path: Path) -> None:
    """Change one weight of a graph by a hundredth, and make the manifest fit it again."""
    model = onnx.load(path)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("encoder_attn.v_proj.bias"))
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) + np.float32(0.5), weight.name))
    onnx.save(model, path)
    file = path.parents[1] / "hfexport.json"
    manifest = json.loads(file.read_text())
    content = path.read_bytes()
    for entry in manifest["files"]:
        if entry["path"] == f"onnx/{path.name}":
            entry |= {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    file.write_text(json.dumps(manifest))


def test_graphs_that_divide_the_work_pass_and_a_forged_one_does_not(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "output"
    assert main(_asked(checkpoint, output, "--variants", "q4", "--min-similarity", "0")) == 0
    _forge(output / "onnx" / "encoder_model_q4_genai.onnx")
    capsys.readouterr()
    assert main(["verify", str(output), "--model", str(checkpoint), "--min-similarity", "0"]) == 6
    said = capsys.readouterr().err
    assert (
        "encoder_model_genai.onnx, decoder_model_merged_genai.onnx: answer as encoder_model.onnx,"
        " decoder_model_merged.onnx do" in said
    )
    assert "encoder_model_q4_genai.onnx and decoder_model_merged_q4_genai.onnx: their logits differ" in said


@pytest.mark.thorough
def test_every_variant_that_divides_the_work_passes(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "output"
    assert main(_asked(checkpoint, output, "--variants", "q4,fp16", "--min-similarity", "0")) == 0
    capsys.readouterr()
    verify = ["verify", str(output), "--model", str(checkpoint), "--min-similarity", "0"]
    assert main(verify) == 0
    said = capsys.readouterr().err
    assert (
        "encoder_model_genai.onnx, decoder_model_merged_genai.onnx: answer as encoder_model.onnx,"
        " decoder_model_merged.onnx do" in said
    )
    assert "encoder_model_q4_genai.onnx, decoder_model_merged_q4_genai.onnx: answer as encoder_model_q4.onnx" in said
    assert "encoder_model_fp16_genai.onnx, decoder_model_merged_fp16_genai.onnx: answer" in said
    _forge(output / "onnx" / "encoder_model_genai.onnx")
    assert main(verify) == 6
    assert (
        "encoder_model_genai.onnx and decoder_model_merged_genai.onnx: their logits differ" in capsys.readouterr().err
    )


@pytest.mark.parametrize("part", [pytest.param("write_encoder", marks=pytest.mark.thorough), "write_decoder"])
def test_a_run_whose_graphs_are_wrong_leaves_nothing(
    part: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def encoder(source: Path, decoder: Path, target: Path) -> Path:
        return _swapped(write_encoder(source, decoder, target), "present.0.encoder.key", "present.1.encoder.key")

    def decoder(source: Path, target: Path) -> Path:
        names = (f"past_key_values.{layer}.decoder.value" for layer in range(2))
        return _swapped(write_decoder(source, target), *names)

    monkeypatch.setattr(cross_attention, part, encoder if part == "write_encoder" else decoder)
    output = tmp_path / "output"
    assert main(_asked(checkpoint, output, "--validate", "off")) == 6
    assert (
        "encoder_model_genai.onnx and decoder_model_merged_genai.onnx: their logits differ" in capsys.readouterr().err
    )
    assert [path.name for path in output.iterdir()] == ["hfexport.json"]


def _swapped(path: Path, one: str, other: str) -> Path:
    """Exchange two values in the nodes of a graph."""
    model = onnx.load(path, load_external_data=False)
    change = {one: other, other: one}
    for node in model.graph.node:
        node.input[:] = [change.get(name, name) for name in node.input]
        node.output[:] = [change.get(name, name) for name in node.output]
    onnx.save(model, path)
    return path


def test_sounds_of_another_length_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "whisper", TASK)
    assert main(_asked(checkpoint, tmp_path / "output")) == 4
    assert "ONNX Runtime GenAI gives whisper 3000 frames, but this model takes" in capsys.readouterr().err


def test_another_layout_is_refused(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(_asked(checkpoint, tmp_path / "output", "--layout", "split")) == 4
    assert "target genai takes whisper as encoder_model.onnx and decoder_model_merged.onnx" in capsys.readouterr().err
