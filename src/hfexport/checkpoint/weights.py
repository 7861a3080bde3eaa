"""Choose the weight files of a folder as transformers does, and find unused ones."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from hfexport.checkpoint.contained import file_in
from hfexport.checkpoint.json_file import read_json
from hfexport.checkpoint.safetensors_header import read_header
from hfexport.errors import CheckpointError

__all__ = [
    "WEIGHT_FILE_NAMES",
    "WeightFiles",
    "WeightFormat",
    "choose_weights",
    "refuse_missing",
    "variant_of",
    "weight_file_names",
]

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
"""File names in the order in which transformers looks for them; a single file comes before an index."""

WEIGHT_FILE_NAMES: Final = tuple(name for name, _ in _CANDIDATES)

MAX_SHARDS: Final = 10_000

_VARIANT: Final = re.compile(
    r"(?:model|pytorch_model)(?:\.(?:safetensors|bin)\.index)?\.([\w-]+?)(?:-\d{5}-of-\d{5})?\.(?:safetensors|bin|json)"
)
"""Pattern of a variant's file names, as `save_pretrained(variant=...)` writes them: `model.fp16.safetensors`."""


@dataclass(frozen=True)
class WeightFiles:
    """The files that hold a checkpoint's weights.

    Attributes:
        format: format of the weights; all formats except `safetensors` are converted to it.
        files: one file, or the shards sorted by name.
        index: file that maps tensors to shards, and its content; `None` and empty for a single file.
        places: name of the shard, by tensor.
        unused: names of other weight files in the folder.
        variant: requested variant, such as `fp16`; empty for the default files.
    """

    format: WeightFormat
    files: tuple[Path, ...]
    index: Path | None
    places: Mapping[str, str]
    unused: tuple[str, ...]
    variant: str = ""

    @property
    def description(self) -> str:
        """Return a description for the user."""
        named = self.index or self.files[0]
        count = f" with {len(self.files)} files" if self.index is not None else ""
        kind = " (format tf)" if self.format == "tensorflow-safetensors" else ""
        unused = f"; not used: {', '.join(self.unused)}" if self.unused else ""
        return f"weights: {named.name}{kind}{count}{unused}"


def weight_file_names(variant: str = "") -> tuple[str, ...]:
    """Return the names of weight files and indexes, in the order in which transformers looks for them.

    Args:
        variant: part that `save_pretrained(variant=...)` puts before the extension; TensorFlow weights have no
            variants.
    """
    if not variant:
        return WEIGHT_FILE_NAMES
    names = (name.rpartition(".") for name in WEIGHT_FILE_NAMES if not name.startswith("tf_"))
    return tuple(f"{stem}.{variant}.{ending}" for stem, _, ending in names)


def variant_of(name: str) -> str:
    """Return the variant in a file name, such as `fp16` in `model.fp16.safetensors`; empty if there is none."""
    found = _VARIANT.fullmatch(name)
    return found[1] if found is not None and found[1] not in ("safetensors", "bin", "index") else ""


def choose_weights(folder: Path, config: Mapping[str, Any], variant: str = "") -> WeightFiles:
    """Find the weights of a checkpoint.

    Args:
        folder: folder of the checkpoint.
        config: content of config.json.
        variant: see `weight_file_names`.

    Raises:
        CheckpointError: there are no weights, or a shard is missing.
    """
    name, weight_format, path = _chosen(folder, config, variant)
    index = path if name.endswith(".json") else None
    places = {} if index is None else _places(index)
    shards = sorted(set(places.values()))
    files = (path,) if index is None else tuple(_shard(folder, index, shard) for shard in shards)
    if weight_format == "safetensors":
        weight_format = _safetensors_format(files)
    others = [*WEIGHT_FILE_NAMES, *sorted(path.name for path in folder.iterdir() if variant_of(path.name))]
    used = {name, *(file.name for file in files)}
    unused = tuple(other for other in others if other not in used and (folder / other).is_file())
    return WeightFiles(weight_format, files, index, places, unused, variant)


def _chosen(folder: Path, config: Mapping[str, Any], variant: str) -> tuple[str, WeightFormat, Path]:
    named = config.get("transformers_weights")
    if named is not None and not variant:
        path = file_in(folder, str(named), named_by="config.json")
        if path is None or not str(named).endswith((".safetensors", f".safetensors{_INDEX_SUFFIX}")):
            raise CheckpointError(
                f"{folder / 'config.json'}: `transformers_weights` names {named!r}, which is no safetensors file there",
                remedy="Add the file, or take the entry out.",
            )
        return str(named), "safetensors", path
    formats = [weight_format for _, weight_format in _CANDIDATES]
    for name, weight_format in zip(weight_file_names(variant), formats, strict=False):
        path = file_in(folder, name)
        if path is not None:
            return name, weight_format, path
    raise refuse_missing(str(folder), (path.name for path in folder.iterdir()), variant)


def refuse_missing(where: str, names: Iterable[str], variant: str) -> CheckpointError:
    """Return the error for a checkpoint without weights, or without those of a variant.

    Args:
        where: folder or repository, for the message.
        names: names of its files.
        variant: requested variant.
    """
    names = sorted(names)
    endings = (".bin", ".h5", ".safetensors", ".msgpack", ".ckpt", ".gguf", ".pt", ".pth")
    found = ", ".join([name for name in names if name.endswith(endings)][:5])
    variants = sorted({variant_of(name) for name in names} - {""})
    what = f"no weights of variant {variant!r}" if variant else "no weights"
    remedy = "Save the model with `save_pretrained`, which writes safetensors."
    if variants:
        remedy = f"Choose one of its variants with the input weights-variant: {', '.join(variants)}."
    elif variant and any(name in names for name in WEIGHT_FILE_NAMES):
        remedy = "Leave weights-variant unset: the weights have no variant in their names."
    return CheckpointError(
        f"{where}: has {what}: none of {', '.join(weight_file_names(variant))}"
        + (f"; it has {found}" if found else ""),
        remedy=remedy,
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
    """Return the format by the first file's metadata. TensorFlow's safetensors have other names of weights."""
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
