"""Which of a folder's files are the weights: the choice that transformers makes, and what else lies there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from hfexport.checkpoint.contained import file_in
from hfexport.checkpoint.json_file import read_json
from hfexport.checkpoint.safetensors_header import read_header
from hfexport.errors import CheckpointError

__all__ = ["WEIGHT_FILE_NAMES", "WeightFiles", "WeightFormat", "choose_weights"]

WeightFormat = Literal["safetensors", "pytorch", "tensorflow-h5", "tensorflow-safetensors"]

_INDEX_SUFFIX: Final = ".index.json"

_CANDIDATES: Final[tuple[tuple[str, WeightFormat], ...]] = (
    ("model.safetensors", "safetensors"),
    ("model.safetensors.index.json", "safetensors"),
    ("pytorch_model.bin", "pytorch"),
    ("pytorch_model.bin.index.json", "pytorch"),
    ("tf_model.h5", "tensorflow-h5"),
    ("tf_model.h5.index.json", "tensorflow-h5"),
)
"""In the order in which transformers looks for them; a single file comes before an index."""

WEIGHT_FILE_NAMES: Final = tuple(name for name, _ in _CANDIDATES)

MAX_SHARDS: Final = 10_000


@dataclass(frozen=True)
class WeightFiles:
    """The files that hold a checkpoint's weights.

    Attributes:
        format: what they are; only `safetensors` is used as it is, everything else is converted to that first.
        files: one, or the shards in order of their names.
        index: the file that places every tensor in a shard, and what it says; `None` and empty if there is one file.
        places: by tensor, the shard's name.
        unused: names of other weight files that lie there.
    """

    format: WeightFormat
    files: tuple[Path, ...]
    index: Path | None
    places: Mapping[str, str]
    unused: tuple[str, ...]

    @property
    def description(self) -> str:
        """In words for the user."""
        named = self.index or self.files[0]
        count = f" with {len(self.files)} files" if self.index is not None else ""
        kind = " (format tf)" if self.format == "tensorflow-safetensors" else ""
        unused = f"; not used: {', '.join(self.unused)}" if self.unused else ""
        return f"weights: {named.name}{kind}{count}{unused}"


def choose_weights(folder: Path, config: Mapping[str, Any]) -> WeightFiles:
    """Find the weights of a checkpoint.

    Raises:
        CheckpointError: there are none, or a shard is missing.
    """
    name, weight_format, path = _chosen(folder, config)
    index = path if name.endswith(_INDEX_SUFFIX) else None
    places = {} if index is None else _places(index)
    shards = sorted(set(places.values()))
    files = (path,) if index is None else tuple(_shard(folder, index, shard) for shard in shards)
    if weight_format == "safetensors":
        weight_format = _safetensors_format(files)
    unused = tuple(other for other in WEIGHT_FILE_NAMES if other != name and (folder / other).is_file())
    return WeightFiles(weight_format, files, index, places, unused)


def _chosen(folder: Path, config: Mapping[str, Any]) -> tuple[str, WeightFormat, Path]:
    named = config.get("transformers_weights")
    if named is not None:
        path = file_in(folder, str(named), named_by="config.json")
        if path is None or not str(named).endswith((".safetensors", f".safetensors{_INDEX_SUFFIX}")):
            raise CheckpointError(
                f"{folder / 'config.json'}: `transformers_weights` names {named!r}, which is no safetensors file there",
                remedy="Add the file, or take the entry out.",
            )
        return str(named), "safetensors", path
    for name, weight_format in _CANDIDATES:
        path = file_in(folder, name)
        if path is not None:
            return name, weight_format, path
    patterns = ("*.bin", "*.h5", "*.safetensors", "*.msgpack", "*.ckpt*", "*.gguf", "*.pt", "*.pth")
    found = ", ".join(sorted(path.name for pattern in patterns for path in folder.glob(pattern))[:5])
    raise CheckpointError(
        f"{folder}: has no weights: none of {', '.join(WEIGHT_FILE_NAMES)}" + (f"; it has {found}" if found else ""),
        remedy="Save the model with `save_pretrained`, which writes safetensors.",
    )


def _places(index: Path) -> dict[str, str]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: has no `weight_map`", remedy="Copy or download the file again.")
    if not all(isinstance(shard, str) for shard in weight_map.values()) or len(set(weight_map.values())) > MAX_SHARDS:
        raise CheckpointError(f"{index}: its `weight_map` names no shards", remedy="Copy or download the file again.")
    return weight_map


def _shard(folder: Path, index: Path, name: str) -> Path:
    path = file_in(folder, name, named_by=index.name)
    if path is None:
        raise CheckpointError(
            f"{folder / name}: is missing, though {index.name} names it", remedy="Add the missing shard."
        )
    return path


def _safetensors_format(files: tuple[Path, ...]) -> WeightFormat:
    """By the metadata of the first file: TensorFlow's safetensors have other names, and would load as random weights."""
    _, metadata = read_header(files[0])
    framework = metadata.get("format", "pt")
    if framework in ("pt", "mlx"):
        return "safetensors"
    if framework == "tf":
        return "tensorflow-safetensors"
    raise CheckpointError(
        f"{files[0]}: its metadata says format {framework!r}: weights with other names, which would load as random ones",
        remedy="Save the model as PyTorch safetensors (format pt).",
    )
