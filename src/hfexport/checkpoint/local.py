"""Opens a checkpoint folder: config.json, safetensors (single or sharded), and the files that go along."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfexport.checkpoint.safetensors_header import TensorInfo, read_header
from hfexport.errors import CheckpointError

__all__ = ["Checkpoint", "copy_along", "open_checkpoint", "sha256"]

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MAX_JSON_BYTES = 2**24

ALONG = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
    "image_processor_config.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "spm.model",
)
"""Files that go to the output unchanged: what a tokenizer, a processor or `generate` reads beside the weights."""

DTYPES = {"F32": "fp32", "F16": "fp16", "BF16": "bf16", "F64": "fp64"}


@dataclass(frozen=True)
class Checkpoint:
    """A folder that was looked at and found whole; its weights were not read.

    Attributes:
        folder: where it lies.
        config: config.json as it stands.
        weight_files: the safetensors files, in order of their names.
        tensors: by name, over all files.
        dtype: the commonest floating dtype by size: `fp32`, `fp16`, `bf16` or `fp64`.
        along: files that go to the output unchanged.
    """

    folder: Path
    config: Mapping[str, Any]
    weight_files: tuple[Path, ...]
    tensors: Mapping[str, TensorInfo]
    dtype: str
    along: tuple[Path, ...]

    @property
    def model_type(self) -> str:
        return str(self.config["model_type"])

    @property
    def architectures(self) -> tuple[str, ...]:
        return tuple(self.config.get("architectures") or ())

    @property
    def size_bytes(self) -> int:
        return sum(tensor.size_bytes for tensor in self.tensors.values())


def open_checkpoint(folder: Path) -> Checkpoint:
    """Look a checkpoint folder over.

    Raises:
        CheckpointError: something is missing, damaged or contradicts itself; the message names the file.
    """
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise CheckpointError(f"{folder}: {found}", remedy="Give a folder with config.json and safetensors files.")
    config = _read_config(folder)
    files, tensors = _read_weights(folder)
    along = tuple(path for name in ALONG if (path := folder / name).is_file())
    return Checkpoint(folder, config, files, tensors, _dtype(tensors), along)


def copy_along(checkpoint: Checkpoint, destination: Path) -> tuple[Path, ...]:
    """Copy the files that go along, byte for byte; returns the copies."""
    return tuple(Path(shutil.copyfile(path, destination / path.name)) for path in checkpoint.along)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        nested = sorted(child.parent.name for child in folder.glob("*/config.json"))
        here = ", ".join(sorted(child.name for child in folder.iterdir())[:8]) or "nothing"
        hint = f" A folder below has one: {nested[0]}." if nested else ""
        raise CheckpointError(
            f"{folder}: has no config.json; it holds {here}", remedy=f"Give the folder of a checkpoint.{hint}"
        )
    config = read_json(path)
    if not isinstance(config.get("model_type"), str):
        raise CheckpointError(
            f"{path}: has no `model_type`", remedy="Use the config.json that transformers saved with the model."
        )
    architectures = config.get("architectures")
    if architectures is not None and not (
        isinstance(architectures, list) and all(isinstance(name, str) for name in architectures)
    ):
        raise CheckpointError(
            f"{path}: `architectures` is {architectures!r}, not a list of class names",
            remedy="Use the config.json that transformers saved with the model.",
        )
    return config


def _read_weights(folder: Path) -> tuple[tuple[Path, ...], dict[str, TensorInfo]]:
    single, index = folder / SINGLE_FILE, folder / INDEX_FILE
    if single.is_file():  # transformers prefers it to an index, too
        tensors, _ = read_header(single)
        return (single,), tensors
    if not index.is_file():
        other = [name for pattern in ("*.bin", "*.h5", "*.safetensors", "*.msgpack") for name in folder.glob(pattern)]
        found = ", ".join(sorted(path.name for path in other)[:5])
        raise CheckpointError(
            f"{folder}: has neither {SINGLE_FILE} nor {INDEX_FILE}" + (f"; it has {found}" if found else ""),
            remedy="Save the model with `save_pretrained`, which writes safetensors.",
        )
    return _read_shards(folder, index)


def _read_shards(folder: Path, index: Path) -> tuple[tuple[Path, ...], dict[str, TensorInfo]]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: has no `weight_map`", remedy="Copy or download the file again.")
    shards: dict[str, dict[str, TensorInfo]] = {}
    for name in sorted(set(map(str, weight_map.values()))):
        path = folder / name
        if Path(name).name != name:
            raise CheckpointError(
                f"{index}: names a shard {name!r} outside the folder", remedy="Shards lie beside their index."
            )
        if not path.is_file():
            raise CheckpointError(f"{path}: is missing, though {INDEX_FILE} names it", remedy="Add the missing shard.")
        shards[name], _ = read_header(path)
    for tensor, shard in weight_map.items():
        if tensor not in shards[shard]:
            raise CheckpointError(
                f"{folder / shard}: lacks tensor {tensor!r}, which {INDEX_FILE} places there",
                remedy="Use the index that was saved with these shards.",
            )
    tensors = {tensor: info for shard in shards.values() for tensor, info in shard.items()}
    unlisted = sorted(set(tensors) - set(weight_map))
    if unlisted:
        raise CheckpointError(
            f"{index}: does not list tensor {unlisted[0]!r}, which a shard holds",
            remedy="Use the index that was saved with these shards.",
        )
    return tuple(folder / name for name in shards), tensors


def _dtype(tensors: Mapping[str, TensorInfo]) -> str:
    sizes: Counter[str] = Counter()
    for tensor in tensors.values():
        if tensor.dtype in DTYPES:
            sizes[DTYPES[tensor.dtype]] += tensor.size_bytes
    return sizes.most_common(1)[0][0] if sizes else "fp32"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; duplicate keys, NaN and Infinity are refused, as other readers disagree about them."""
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        raise CheckpointError(f"{path}: has {size} bytes; no such file has more than {MAX_JSON_BYTES}")
    try:
        value = json.loads(path.read_bytes(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: is not valid JSON: {error}", remedy="Correct or restore the file.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: holds no JSON object", remedy="Correct or restore the file.")
    return value


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    counts = Counter(key for key, _ in pairs)
    for key, count in counts.items():
        if count > 1:
            raise ValueError(f"key {key!r} stands {count} times")
    return dict(pairs)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")
