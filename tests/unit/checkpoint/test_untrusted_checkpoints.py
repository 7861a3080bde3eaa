"""Whatever a checkpoint's files say, reading them ends soon, and in one error that the user can act on."""

from __future__ import annotations

import json
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from hfexport.checkpoint import look_over, open_checkpoint, torch_file
from hfexport.checkpoint.torch_pickle import PickleRefusedError, follow
from hfexport.errors import CheckpointError

FUZZ = settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

CONFIG = json.dumps({"model_type": "bert", "architectures": ["BertModel"]}).encode()
WEIGHTS = save({"a": np.ones((2, 3), np.float32), "b": np.ones(4, np.float16)}, {"format": "pt"})

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@contextmanager
def _folder(**files: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, content in {"config.json": CONFIG, "model.safetensors": WEIGHTS, **files}.items():
            (folder / name).write_bytes(content)
        yield folder


def _opens_or_says_why(folder: Path, read: Callable[[Path], object] = open_checkpoint) -> None:
    try:
        read(folder)
    except CheckpointError as error:
        assert str(folder) in error.message  # names the file


def _mutated(original: bytes) -> st.SearchStrategy[bytes]:
    """`original` with some bytes changed, a piece cut out or put in."""
    at = st.integers(0, len(original))
    changed = st.lists(st.tuples(st.integers(0, len(original) - 1), st.integers(0, 255)), min_size=1, max_size=6)

    def change(edits: list[tuple[int, int]]) -> bytes:
        data = bytearray(original)
        for position, value in edits:
            data[position] = value
        return bytes(data)

    cut = st.tuples(at, at).map(lambda ends: original[: min(ends)] + original[max(ends) :])
    put = st.tuples(at, st.binary(max_size=12)).map(lambda pair: original[: pair[0]] + pair[1] + original[pair[0] :])
    return changed.map(change) | cut | put


@FUZZ
@given(value=JSON)
def test_any_config(value: Any) -> None:
    with _folder(**{"config.json": json.dumps(value).encode()}) as folder:
        _opens_or_says_why(folder)


@FUZZ
@given(entries=st.dictionaries(st.sampled_from(["model_type", "architectures", "transformers_weights", "x"]), JSON))
def test_any_value_of_what_is_read_in_a_config(entries: dict[str, Any]) -> None:
    config = {"model_type": "bert", **entries}
    with _folder(**{"config.json": json.dumps(config).encode()}) as folder:
        _opens_or_says_why(folder)


@FUZZ
@given(content=_mutated(CONFIG) | st.binary(max_size=40))
def test_any_bytes_for_a_config(content: bytes) -> None:
    with _folder(**{"config.json": content}) as folder:
        _opens_or_says_why(folder)


@FUZZ
@given(content=_mutated(WEIGHTS) | st.binary(max_size=40))
def test_any_bytes_for_safetensors(content: bytes) -> None:
    with _folder(**{"model.safetensors": content}) as folder:
        _opens_or_says_why(folder)


@FUZZ
@given(header=JSON)
def test_any_header_of_safetensors(header: Any) -> None:
    raw = json.dumps(header).encode()
    with _folder(**{"model.safetensors": struct.pack("<Q", len(raw)) + raw + bytes(32)}) as folder:
        _opens_or_says_why(folder)


@FUZZ
@given(entry=st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets"]), JSON | st.just("F32"), min_size=2))
def test_any_tensor_of_safetensors(entry: dict[str, Any]) -> None:
    raw = json.dumps({"a": entry}).encode()
    with _folder(**{"model.safetensors": struct.pack("<Q", len(raw)) + raw + bytes(32)}) as folder:
        _opens_or_says_why(folder)


@FUZZ
@given(index=JSON | st.dictionaries(st.just("weight_map"), st.dictionaries(st.text(max_size=3), JSON, max_size=3)))
def test_any_index(index: Any) -> None:
    with _folder(**{"model.safetensors.index.json": json.dumps(index).encode()}) as folder:
        (folder / "model.safetensors").unlink()
        _opens_or_says_why(folder)


def _torch_bytes(*, zipped: bool) -> bytes:
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, "pytorch_model.bin")
        torch.save({"a": torch.ones(2, 3), "b": torch.ones(4).half()}, path, _use_new_zipfile_serialization=zipped)
        return path.read_bytes()


@FUZZ
@given(content=_mutated(_torch_bytes(zipped=False)) | _mutated(_torch_bytes(zipped=True)) | st.binary(max_size=40))
def test_any_bytes_for_a_torch_file(content: bytes) -> None:
    with _folder(**{"pytorch_model.bin": content}) as folder:
        _opens_or_says_why(
            folder, lambda found: [t.read() for t in torch_file.stored_tensors(found / "pytorch_model.bin")]
        )


@FUZZ
@given(content=st.binary(max_size=60).map(lambda body: b"\x80\x02" + body + b"."))
def test_any_pickle(content: bytes) -> None:
    import io

    try:
        follow(io.BytesIO(content))
    except PickleRefusedError:
        return


LINKED = ("config.json", "model.safetensors", "tokenizer.json", "generation_config.json")


@pytest.mark.parametrize("name", LINKED)
def test_a_link_that_leads_out_of_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(CONFIG if name.endswith(".json") else WEIGHTS)
    with _folder() as folder:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(outside)
        with pytest.raises(CheckpointError, match="leads out of the folder"):
            look_over(folder)


def test_a_link_inside_the_folder_is_followed() -> None:
    with _folder() as folder:
        (folder / "model.safetensors").rename(folder / "weights")
        (folder / "model.safetensors").symlink_to("weights")
        assert open_checkpoint(folder).size_bytes == 32


def test_a_snapshot_in_the_hubs_cache_may_link_to_its_blobs_alone(tmp_path: Path) -> None:
    cache = tmp_path / "models--owner--name"
    snapshot, blobs = cache / "snapshots" / ("0" * 40), cache / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for name, content in (("config.json", CONFIG), ("model.safetensors", WEIGHTS)):
        (blobs / name).write_bytes(content)
        (snapshot / name).symlink_to(f"../../blobs/{name}")
    assert open_checkpoint(snapshot).size_bytes == 32
    (tmp_path / "other").write_bytes(CONFIG)
    (snapshot / "tokenizer.json").symlink_to(tmp_path / "other")
    with pytest.raises(CheckpointError, match="leads out of the folder"):
        look_over(snapshot)


@pytest.mark.parametrize("name", ["../config.json", "/etc/passwd", "a/b", "..", "", "a\0b"])
def test_a_shard_outside_the_folder_is_refused(name: str) -> None:
    index = json.dumps({"weight_map": {"a": name}}).encode()
    with _folder(**{"model.safetensors.index.json": index}) as folder:
        (folder / "model.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"outside the folder|is missing"):
            look_over(folder)


def test_a_named_pipe_is_no_file() -> None:
    """Opening one would wait for ever."""
    with _folder() as folder:
        (folder / "model.safetensors").unlink()
        os.mkfifo(folder / "model.safetensors")
        with pytest.raises(CheckpointError, match="has no weights"):
            look_over(folder)


def test_a_config_of_gigabytes_is_refused_unread() -> None:
    with _folder() as folder:
        with (folder / "config.json").open("wb") as file:
            file.truncate(2**33)
        with pytest.raises(CheckpointError, match="has more than 16777216 bytes"):
            look_over(folder)


def test_a_header_of_gigabytes_is_refused_unread() -> None:
    with _folder() as folder:
        with (folder / "model.safetensors").open("wb") as file:
            file.write(struct.pack("<Q", 2**32))
            file.truncate(2**33)
        with pytest.raises(CheckpointError, match="says its header has 4294967296 bytes"):
            look_over(folder)


def test_the_choice_of_weights_is_that_of_transformers() -> None:
    with _folder(**{"pytorch_model.bin": b"", "tf_model.h5": b""}) as folder:
        weights = look_over(folder).weights
        assert [path.name for path in weights.files] == ["model.safetensors"]
        assert weights.description == "weights: model.safetensors; not used: pytorch_model.bin, tf_model.h5"
        (folder / "model.safetensors").unlink()
        assert look_over(folder).weights.format == "pytorch"
        (folder / "pytorch_model.bin").unlink()
        assert look_over(folder).weights.format == "tensorflow-h5"


def test_the_config_may_name_the_weights() -> None:
    config = {"model_type": "bert", "transformers_weights": "other.safetensors"}
    with _folder(**{"config.json": json.dumps(config).encode(), "other.safetensors": WEIGHTS}) as folder:
        assert [path.name for path in look_over(folder).weights.files] == ["other.safetensors"]
        (folder / "other.safetensors").unlink()
        with pytest.raises(CheckpointError, match="transformers_weights"):
            look_over(folder)


ABSURD = {
    "num_hidden_layers": 10**9,
    "depths": [1, 10**9],
    "num_labels": 10**9,
    "hidden_size": 10**13,
    "text_config": {"num_hidden_layers": 10**9},
    "vocab_size": -(10**18),
}


@pytest.mark.parametrize("name", ABSURD)
def test_sizes_that_no_model_has_are_refused(name: str) -> None:
    config = {"model_type": "bert", name: ABSURD[name]}
    with _folder(**{"config.json": json.dumps(config).encode()}) as folder:
        with pytest.raises(CheckpointError, match="no model has more than") as caught:
            look_over(folder)
        assert name in caught.value.message


def test_a_config_nested_without_end_is_refused() -> None:
    config = '{"model_type": "bert", "x": ' + "[" * 60 + "]" * 60 + "}"
    with (
        _folder(**{"config.json": config.encode()}) as folder,
        pytest.raises(CheckpointError, match="nested more than"),
    ):
        look_over(folder)
