"""A checkpoint folder is either whole, or refused with the file named and what is wrong with it."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from hfexport.checkpoint import copy_along, look_over, open_checkpoint
from hfexport.checkpoint.local import ALONG
from hfexport.checkpoint.quantized import refuse_plain_weights
from hfexport.checkpoint.safetensors_header import TensorInfo
from hfexport.checkpoint.weights import variant_of
from hfexport.errors import CheckpointError, UnsupportedError
from hfexport.run.output_folder import without_staging


def _write(folder: Path, metadata: dict[str, str] | None = None) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    tensors = {"a": np.ones((2, 3), np.float32), "b": np.ones(4, np.float16)}
    save_file(tensors, folder / "model.safetensors", metadata=metadata or {"format": "pt"})
    return folder


def _write_shards(folder: Path) -> Path:
    _write(folder)
    (folder / "model.safetensors").unlink()
    for name in ("a", "b"):
        save_file({name: np.ones(3, np.float32)}, folder / f"{name}.safetensors", metadata={"format": "pt"})
    index = {"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_a_whole_folder_opens(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(_write(tmp_path / "c"))
    assert (checkpoint.model_type, checkpoint.dtype, checkpoint.size_bytes) == ("bert", "fp32", 32)
    assert checkpoint.tensors["a"].shape == (2, 3)


def test_shards_open(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(_write_shards(tmp_path / "c"))
    assert [path.name for path in checkpoint.weight_files] == ["a.safetensors", "b.safetensors"]


def test_files_that_go_along_are_unchanged(tmp_path: Path) -> None:
    folder = _write(tmp_path / "c")
    (folder / "tokenizer.json").write_bytes(b"{ }\r\n")
    (copy := tmp_path / "out").mkdir()
    copied = copy_along(open_checkpoint(folder).along, copy)
    assert [path.name for path in copied] == ["config.json", "tokenizer.json"]
    assert (copy / "tokenizer.json").read_bytes() == b"{ }\r\n"


def test_layers_of_sentence_transformers_go_along_where_they_lie(tmp_path: Path) -> None:
    folder = _write(tmp_path / "c")
    for place in ("1_Pooling", "2_Dense", "onnx"):
        (folder / place).mkdir()
        (folder / place / "config.json").write_text("{}")
    (folder / "2_Dense/model.safetensors").write_bytes(b"weights")
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (elsewhere / "config.json").write_text("{}")
    (folder / "3_Normalize").symlink_to(elsewhere)
    assert list(open_checkpoint(folder).along) == ["config.json"]
    (folder / "modules.json").write_text("[]")
    (copy := tmp_path / "out").mkdir()
    copied = copy_along(open_checkpoint(folder).along, copy)
    below = ["1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"]
    assert [str(path.relative_to(copy)) for path in copied] == ["config.json", "modules.json", *below]


def _truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-3])


def _lengthen(folder: Path) -> None:
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"xxx")


def _header(change: Callable[[dict[str, dict[str, object]]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "model.safetensors"
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        change(header)
        raw = json.dumps(header).encode()
        path.write_bytes(len(raw).to_bytes(8, "little") + raw + data[8 + length :])

    return damage


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "has no weights: none of model.safetensors"),
    "truncated": (_truncate, "3 bytes are missing"),
    "trailing bytes": (_lengthen, "bytes follow its last tensor"),
    "empty": (lambda folder: (folder / "model.safetensors").write_bytes(b""), "too few for a safetensors file"),
    "not safetensors": (lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 99), "says its header has"),
    "lfs pointer": (
        lambda folder: (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n"),
        "is a Git LFS pointer",
    ),
    "wrong shape": (_header(lambda header: header["a"].update(shape=[2, 4])), "needs 32 bytes, its offsets give 24"),
    "negative shape": (_header(lambda header: header["a"].update(shape=[-2, -3])), "not described as the format"),
    "unknown dtype": (_header(lambda header: header["a"].update(dtype="F31")), "has dtype 'F31'"),
    "overlap": (_header(lambda header: header["b"].update(data_offsets=[16, 24])), "starts at"),
    "tensorflow": (
        _header(lambda header: header["__metadata__"].update(format="tf")),
        "(format tf) are not PyTorch safetensors",
    ),
    "metadata is a list": (_header(lambda header: header.update(__metadata__=[])), "no JSON object of strings"),
    "metadata is false": (_header(lambda header: header.update(__metadata__=False)), "no JSON object of strings"),
    "metadata holds a number": (
        _header(lambda header: header["__metadata__"].update(x=1)),
        "no JSON object of strings",
    ),
    "flax": (_header(lambda header: header["__metadata__"].update(format="flax")), "metadata says format 'flax'"),
    "config is no JSON": (lambda folder: (folder / "config.json").write_text("{'a': 1}"), "is not valid JSON"),
    "config is a list": (lambda folder: (folder / "config.json").write_text("[]"), "holds no JSON object"),
    "key twice": (lambda folder: (folder / "config.json").write_text('{"a": 1, "a": 2}'), "key 'a' occurs 2 times"),
    "NaN": (lambda folder: (folder / "config.json").write_text('{"a": NaN}'), "NaN is no JSON value"),
    "no model type": (lambda folder: (folder / "config.json").write_text("{}"), "has no `model_type`"),
    "deep": (lambda folder: (folder / "config.json").write_text("[" * 100_000), "is not valid JSON"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named(name: str, tmp_path: Path) -> None:
    damage, message = DAMAGES[name]
    folder = _write(tmp_path / "c")
    damage(folder)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    assert message in caught.value.message
    assert str(folder) in caught.value.message


def test_damaged_shards_are_named(tmp_path: Path) -> None:
    folder = _write_shards(tmp_path / "c")
    index = folder / "model.safetensors.index.json"
    for weight_map, message in (
        ({"a": "a.safetensors", "b": "c.safetensors"}, "c.safetensors: is missing"),
        ({"a": "a.safetensors", "b": "../b.safetensors"}, "outside the folder"),
        ({"b": "a.safetensors", "a": "b.safetensors"}, "lacks tensor 'b'"),
        ({}, "has no `weight_map`"),
    ):
        index.write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(CheckpointError) as caught:
            open_checkpoint(folder)
        assert message in caught.value.message


def test_a_missing_folder_and_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        open_checkpoint(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="is a file"):
        open_checkpoint(tmp_path / "file")


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"


def test_the_files_of_every_tokenizer_of_transformers_go_along(tmp_path: Path) -> None:
    folder = Path(importlib.util.find_spec("transformers").origin).parent / "models"  # type: ignore[union-attr, arg-type]
    sources = [path.read_text(encoding="utf-8") for path in folder.glob("*/tokenization_*.py")]
    tables = [
        found
        for text in sources
        for found in re.findall(r"^VOCAB_FILES_NAMES[^{]*(\{.*?\})", text, re.DOTALL | re.MULTILINE)
    ]
    names = {name for table in tables for name in re.findall(r':\s*"([^"]+)"', table)}
    assert {"source.spm", "spiece.model", "vocab.txt"} <= names
    # Perceiver's byte maps are made by its tokenizer from nothing.
    assert names - set(ALONG) <= {"byte_maps.json"}
    checkpoint = _write(tmp_path / "c")
    for name in set(ALONG) - {"config.json"}:
        (checkpoint / name).write_text("{}")
    assert set(look_over(checkpoint).along) == set(ALONG)


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "vocab.txt", "modeling_own.py", "1_Pooling/config.json", "spiece.model", "target.spm"]
)
def test_a_pointer_is_refused_in_every_file_that_is_read_or_goes_along(name: str, tmp_path: Path) -> None:
    folder = _write(tmp_path / "c")
    (folder / "modules.json").write_text("[]")
    (folder / "1_Pooling").mkdir()
    (folder / name).write_text(POINTER)
    with pytest.raises(CheckpointError, match=rf"{name}: is a Git LFS pointer"):
        look_over(folder)


def test_variants_of_the_weights(tmp_path: Path) -> None:
    folder = _write(tmp_path / "c")
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
    with pytest.raises(CheckpointError) as caught:
        look_over(folder)
    assert "weights-variant: fp16" in caught.value.remedy
    with pytest.raises(CheckpointError, match="has no weights of variant 'bf16'"):
        look_over(folder, "bf16")
    assert [path.name for path in look_over(folder, "fp16").weights.files] == ["model.fp16.safetensors"]
    (folder / "model.safetensors").write_bytes((folder / "model.fp16.safetensors").read_bytes())
    assert look_over(folder).weights.unused == ("model.fp16.safetensors",)
    (folder / "model.fp16.safetensors").unlink()
    with pytest.raises(CheckpointError) as caught:
        look_over(folder, "fp16")
    assert "Leave weights-variant unset" in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("model.fp16.safetensors", "fp16"),
        ("model.safetensors.index.fp16.json", "fp16"),
        ("model.non-ema-00001-of-00002.safetensors", "non-ema"),
        ("pytorch_model.bf16.bin", "bf16"),
        ("pytorch_model.bin.index.bf16.json", "bf16"),
        *((name, "") for name in ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin.index.json")),
        *((name, "") for name in ("model-00001-of-00002.safetensors", "tf_model.h5", "model.json", "config.json")),
    ],
)
def test_the_variant_that_a_file_name_says(name: str, variant: str) -> None:
    assert variant_of(name) == variant


def _info(dtype: str) -> TensorInfo:
    return TensorInfo(dtype, (2, 3), 24, 0)


def test_weights_that_are_not_quantised_as_the_config_says(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    config = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    with pytest.raises(CheckpointError, match=r"says that the weights are quantised \(gptq\), but they are plain F32"):
        refuse_plain_weights(path, config, {"a.weight": _info("F32"), "a.bias": _info("F32")})
    refuse_plain_weights(path, config, {"a.qweight": _info("I32"), "a.scales": _info("F16")})
    refuse_plain_weights(path, config, {"a.weight": _info("F8_E4M3"), "a.bias": _info("F32")})
    refuse_plain_weights(path, {}, {"a.weight": _info("F32")})


def test_pruned_heads_are_refused_for_what_they_are(tmp_path: Path) -> None:
    folder = _write(tmp_path / "c")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "pruned_heads": {}}))
    look_over(folder)
    (folder / "config.json").write_text(json.dumps({**config, "pruned_heads": {"0": [1]}}))
    with pytest.raises(UnsupportedError, match="transformers 5 has no such models"):
        look_over(folder)


def test_messages_name_the_checkpoint_and_not_the_staging_folder(tmp_path: Path) -> None:
    output = tmp_path / "my out"
    for folder in ("converted/checkpoint", "merged/checkpoint", "variant"):
        text = (
            f"{output}/.hfexport-ab_1/{folder}/model.safetensors: weight x and {output}/.hfexport-ab_1/{folder}: task"
        )
        assert (
            without_staging(text, output, "owner/name") == "owner/name/model.safetensors: weight x and owner/name: task"
        )
    text = f"{output}/.hfexport-ab_1/ready/onnx/model.onnx: too large"
    assert without_staging(text, output, "owner/name") == f"{output}/onnx/model.onnx: too large"
    assert without_staging("'.hfexport-ab_1/converted/checkpoint': no", Path(), "m") == "'m': no"
