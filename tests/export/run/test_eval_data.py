"""Variants measured on the user's images, sounds and pairs of texts, through the checkpoint's own processor."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from broken import export_config
from command import manifest_of, run
from hfexport.errors import InputsError, UnsupportedError
from hfexport.validation.quality.cases import Case, media_cases
from hfexport.validation.quality.data import Data, read_data
from hfexport.validation.quality.media import prepared
from hfexport.validation.quality.reference import run as run_model
from tiny import make_checkpoint

VIT = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
DETR = {"image_processor_type": "DetrImageProcessor", "size": {"shortest_edge": 48, "longest_edge": 96}}
WHISPER = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 8, "sampling_rate": 16000}
WAV2VEC2 = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 16000, "do_normalize": True}


def checkpoint_with(folder: Path, model_type: str, task: str, processor: dict[str, Any], **options: Any) -> Path:
    checkpoint = make_checkpoint(folder, model_type, task, **options)
    (checkpoint / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    return checkpoint


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media") / "photos"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, name in enumerate(("a.png", "b.jpg", "c.webp", "more/d.bmp", "more/e.png")):
        pixels = rng.integers(0, 255, (40 + 10 * (number // 3), 60, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "notes.md").write_text("not an image", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media") / "calls"
    folder.mkdir()
    rng = np.random.default_rng(0)
    soundfile.write(folder / "a.wav", rng.normal(0, 0.1, (4000, 2)), 16000)
    soundfile.write(folder / "b.flac", rng.normal(0, 0.1, 6000), 16000)
    return folder


def answered(checkpoint: Path, task: str, data: Path, folder: Path) -> dict[str, Any]:
    """Run the model on data, as the process for variants does."""
    graphs = export_config(checkpoint, task).graphs("split")
    return run_model(
        {
            "checkpoint": str(checkpoint),
            "tokenizer": str(checkpoint),
            "data": str(data),
            "threads": 1,
            "graphs": [{"recipe": dict(graph.recipe), "folder": str(folder / graph.graph)} for graph in graphs],
        }
    )


def test_images_by_the_command_line(tmp_path: Path, images: Path) -> None:
    checkpoint = checkpoint_with(tmp_path / "vit", "vit", "image-classification", VIT)
    code, said = run(
        *(tmp_path / "out", "--model", checkpoint, "--formats", "onnx", "--variants", "int8"),
        *("--eval-data", images, "--min-similarity", "0.5"),
    )
    assert code == 0, said
    quality = manifest_of(tmp_path / "out")["variants"][0]["quality"]
    assert (quality["data"], quality["samples"]) == ("photos", 5)
    assert {"mean_cosine", "top1_agreement"} <= {measure["name"] for measure in quality["measures"]}


def test_images_of_several_sizes_with_a_mask(tmp_path: Path, images: Path) -> None:
    """Images of the same size share a call."""
    checkpoint = checkpoint_with(tmp_path / "detr", "detr", "object-detection", DETR)
    found = answered(checkpoint, "object-detection", images, tmp_path)
    assert (found["data"], found["samples"]) == ("photos", 5)
    cases = found["graphs"]["model"]
    assert [(case["real"], case["probe"]["sizes"]["batch"]) for case in cases] == [(True, 3), (True, 2)]


def test_sounds_of_an_encoder_decoder(tmp_path: Path, sounds: Path) -> None:
    """Generation is measured on them too."""
    task = "speech2seq-lm-with-past"
    processor = {**WHISPER, "chunk_length": 1}
    checkpoint = checkpoint_with(tmp_path / "whisper", "whisper", task, processor, max_source_positions=50)
    found = answered(checkpoint, task, sounds, tmp_path)
    assert (found["data"], found["samples"]) == ("calls", 2)
    real = {name: [case["real"] for case in cases] for name, cases in found["graphs"].items()}
    assert real["encoder_model"] == real["decoder_with_past_model"] == [True]
    assert not any(real["decoder_model"])
    (generation,) = found["graphs"]["decoder_with_past_model"]
    assert generation["probe"]["greedy_steps"] > 0


def test_sounds_are_mixed_and_batched_by_length(tmp_path: Path, sounds: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(WAV2VEC2), encoding="utf-8")
    samples = prepared(read_data(str(sounds)), tmp_path, trust_remote_code=False)
    assert [sample["input_values"].shape for sample in samples] == [(1, 4000), (1, 6000)]


def test_pairs_of_texts_answer_questions(tmp_path: Path) -> None:
    """Both texts are read together, with token types, and spans are compared."""
    checkpoint = make_checkpoint(tmp_path / "bert", "bert", "question-answering", tokenizer=True)
    data = tmp_path / "questions.csv"
    data.write_text("question,context\n" + "what is it,the number of things\n" * 5, encoding="utf-8")
    assert read_data(str(data)).texts[0] == ("what is it", "the number of things")
    found = answered(checkpoint, "question-answering", data, tmp_path)
    assert found["samples"] == 5
    assert all(case["real"] for case in found["graphs"]["model"])


@pytest.mark.parametrize(
    ("row", "texts"),
    [
        ({"premise": "a", "hypothesis": "b", "label": 1}, ("a", "b")),
        ({"sentence1": "a", "sentence2": "b"}, ("a", "b")),
        ({"question": "a"}, ("a",)),
        ({"question": "a", "context": ""}, ("a",)),
        ({"sentence": "a", "label": "x"}, ("a",)),
    ],
)
def test_columns_of_pairs(row: dict[str, Any], texts: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row), encoding="utf-8")
    assert read_data(str(path)).texts == (texts,)


def _png(width: int, height: int) -> bytes:
    """Return a PNG that claims a size, without its pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.png", b"", "no image that Pillow can identify"),
        ("a.png", b"%PDF-1.4", "no image that Pillow can identify"),
        ("a.png", _png(60_000, 60_000), "pixels"),
        ("a.png", _png(30, 30), "cannot be read"),
        ("a.wav", b"RIFF\x00\x00\x00\x00WAVE", "cannot be read"),
        ("a.flac", b"fLaC" + bytes(100), "cannot be read"),
        ("a.wav", b"FORM\x00\x00\x00\x2eAIFF", "cannot be read"),
    ],
)
def test_hostile_files_have_one_error(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / name).write_bytes(content)
    processor = VIT if name.endswith("png") else WAV2VEC2
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    with pytest.raises(InputsError) as caught:
        prepared(read_data(str(folder)), tmp_path, trust_remote_code=False)
    (problem,) = caught.value.problems
    assert problem.startswith(f"eval-data data: {name}: cannot be read: ")
    assert said in problem


def test_another_sample_rate_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(800), 8000)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(WAV2VEC2), encoding="utf-8")
    with pytest.raises(InputsError, match="8000 samples a second, and the model takes 16000"):
        prepared(read_data(str(tmp_path)), tmp_path, trust_remote_code=False)


def test_a_checkpoint_without_processor(tmp_path: Path, images: Path) -> None:
    with pytest.raises(UnsupportedError, match="no image processor"):
        prepared(read_data(str(images)), tmp_path, trust_remote_code=False)


def test_images_of_another_size_than_the_model_takes(tmp_path: Path, images: Path) -> None:
    large = {**VIT, "size": {"height": 64, "width": 64}}
    checkpoint = checkpoint_with(tmp_path / "vit", "vit", "image-classification", large)
    with pytest.raises(UnsupportedError, match=r"pixel_values has the shape \(1, 3, 64, 64\), and the model takes"):
        answered(checkpoint, "image-classification", images, tmp_path)


def test_a_model_that_reads_texts_gets_no_images(tmp_path: Path, images: Path) -> None:
    checkpoint = checkpoint_with(tmp_path / "bert", "bert", "default", VIT, tokenizer=True)
    with pytest.raises(UnsupportedError, match="does not read images alone"):
        answered(checkpoint, "default", images, tmp_path)


def test_folders_are_checked_with_the_other_inputs(tmp_path: Path, images: Path, sounds: Path) -> None:
    empty, both = tmp_path / "empty", tmp_path / "both"
    empty.mkdir()
    both.mkdir()
    for path in (images / "a.png", sounds / "a.wav"):
        (both / path.name).write_bytes(path.read_bytes())
    for folder, said in ((empty, "has no images"), (both, "has images and sounds; give one kind")):
        code, text = run(tmp_path / "out", "--model", tmp_path, "--variants", "int8", "--eval-data", folder)
        assert code == 2
        assert said in text


def test_the_first_files_are_read(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"{number:03}.png").write_bytes(b"")
    data = read_data(str(tmp_path))
    assert isinstance(data, Data)
    assert (len(data.files), data.files[0].name) == (256, "000.png")


def test_cases_need_every_input(tmp_path: Path) -> None:
    """A model that reads texts and images is not run on images alone."""
    checkpoint = make_checkpoint(tmp_path / "clip", "clip", "default")
    config = export_config(checkpoint, "default")
    cases: list[Case] = media_cases(config, [{"pixel_values": np.zeros((1, 3, 32, 32), np.float32)}])
    assert cases == []
