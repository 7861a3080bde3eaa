"""Open a checkpoint folder: config.json, the weights that transformers would choose, and the files to copy."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hfexport.checkpoint.contained import file_in, files_beside, folders_in
from hfexport.checkpoint.json_file import read_bounded, read_json
from hfexport.checkpoint.lfs import refuse_pointer
from hfexport.checkpoint.plausible import refuse_absurd_sizes
from hfexport.checkpoint.safetensors_header import TensorInfo, read_header
from hfexport.checkpoint.sentence_folder import MODULES_FILE, at_the_root, read_modules, transformer_place
from hfexport.checkpoint.weights import WeightFiles, WeightFormat, choose_weights
from hfexport.errors import CheckpointError, UnsupportedError

__all__ = [
    "Checkpoint",
    "Contents",
    "Conversion",
    "commonest_dtype",
    "copy_along",
    "files_along",
    "goes_along",
    "look_over",
    "open_checkpoint",
    "read_checkpoint",
    "sha256",
    "transformer_folder",
]

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
    "video_preprocessor_config.json",
    "audio_tokenizer_config.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "spm.model",
    *("source.spm", "target.spm", "target_vocab.json", "vocab-src.json", "vocab-tgt.json"),
    *("sentencepiece.model", "spm_char.model", "bpe.codes", "dict.txt", "prophetnet.tokenizer", "tekken.json"),
    *("entity_vocab.json", "word_shape.json", "word_pronunciation.json", "emoji.json", "normalizer.json"),
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
)
"""Files that are copied to the output unchanged: those that a tokenizer, a processor, `generate` or
sentence-transformers reads."""

_MODULE_FOLDER: Final = re.compile(r"\d+_\w+")
_MODULE_FILES: Final = ("config.json", "model.safetensors", "pytorch_model.bin")
"""Files in the folder of a further sentence-transformers module, such as its pooling."""

HASHED_PART_BYTES: Final = 2**20

DTYPES = {"F32": "fp32", "F16": "fp16", "BF16": "bf16", "F64": "fp64"}


@dataclass(frozen=True)
class Contents:
    """A checkpoint folder whose files were found but not read; its weights may need conversion.

    Attributes:
        folder: folder of config.json and the weights.
        config: content of config.json.
        weights: files of the weights.
        along: files to copy to the output unchanged, by output path.
        root: folder that the user gave. In a sentence-transformers folder, `folder` may be below it.
    """

    folder: Path
    config: Mapping[str, Any]
    weights: WeightFiles
    along: Mapping[str, Path]
    root: Path

    @property
    def model_type(self) -> str:
        return str(self.config["model_type"])

    @property
    def architectures(self) -> tuple[str, ...]:
        return tuple(self.config.get("architectures") or ())

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the sources of the weights: config.json and all weight files, including the index."""
        index = () if self.weights.index is None else (self.weights.index,)
        return (self.folder / "config.json", *index, *self.weights.files)


@dataclass(frozen=True)
class Conversion:
    """How a checkpoint's weights became PyTorch safetensors.

    Attributes:
        weight_format: original format of the weights.
        left_out: names of stored weights that the model is known not to use.
        removed_prefixes: prefixes of wrappers that were removed from names of weights, such as `_orig_mod.`.
        wall_s: duration in seconds.
        peak_rss_bytes: largest resident set of the converting process; includes pages of mapped files.
        dequantised: quantisation method of the weights, such as `gptq`; empty if they were not quantised.
    """

    weight_format: WeightFormat
    left_out: tuple[str, ...]
    removed_prefixes: tuple[str, ...]
    wall_s: float
    peak_rss_bytes: int
    dequantised: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """A complete folder of PyTorch safetensors whose headers were checked; its weights were not read.

    Attributes:
        contents: the folder that the user gave, which differs from `folder` if the weights were converted.
        folder: folder of config.json and the safetensors files.
        weight_files: safetensors files, sorted by name.
        tensors: tensors of all files, by name.
        dtype: floating dtype with the most bytes: `fp32`, `fp16`, `bf16` or `fp64`.
        conversion: how the weights were converted; `None` if they were not.
    """

    contents: Contents
    folder: Path
    weight_files: tuple[Path, ...]
    tensors: Mapping[str, TensorInfo]
    dtype: str
    conversion: Conversion | None = None

    @property
    def config(self) -> Mapping[str, Any]:
        return self.contents.config

    @property
    def along(self) -> Mapping[str, Path]:
        return self.contents.along

    @property
    def model_type(self) -> str:
        return self.contents.model_type

    @property
    def architectures(self) -> tuple[str, ...]:
        return self.contents.architectures

    @property
    def size_bytes(self) -> int:
        return sum(tensor.size_bytes for tensor in self.tensors.values())


def look_over(folder: Path, variant: str = "") -> Contents:
    """Find the files of a checkpoint folder without reading the weights.

    Args:
        folder: folder of a checkpoint or of sentence-transformers.
        variant: variant of the weights, see `hfexport.checkpoint.weights.weight_file_names`.

    Raises:
        CheckpointError: a file is missing, damaged or leads out of the folder; the message names it.
    """
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise CheckpointError(f"{folder}: {found}", remedy="Give a folder with config.json and weights.")
    root, folder = folder, transformer_folder(folder)
    config = _read_config(folder)
    along = files_along(root, folder)
    for path in {*along.values(), *files_beside(folder)}:
        refuse_pointer(path)
    return Contents(folder, config, choose_weights(folder, config, variant), along, root)


def transformer_folder(folder: Path) -> Path:
    """Return the folder of config.json: the given folder, or the transformer's in a sentence-transformers folder.

    Raises:
        CheckpointError: modules.json is damaged, and the folder has no config.json.
    """
    place = transformer_place(lambda name: (folder / name).is_file(), lambda: read_modules(folder / MODULES_FILE))
    if (folder / place).resolve() != folder.resolve() / place:
        raise CheckpointError(
            f"{folder / place}: is a link to another folder", remedy="Put the folder itself in its place."
        )
    return folder / place


def goes_along(name: str) -> bool:
    """Return whether a file of a checkpoint is copied to the output unchanged, by its path in the folder."""
    place, _, file = name.rpartition("/")
    return file in _MODULE_FILES and _MODULE_FOLDER.fullmatch(place) is not None if place else file in ALONG


def read_checkpoint(contents: Contents) -> Checkpoint:
    """Check the headers of a folder of PyTorch safetensors and return it as a checkpoint.

    Raises:
        CheckpointError: a file is damaged or contradicts the index; the message names the file.
    """
    weights = contents.weights
    if weights.format != "safetensors":
        raise CheckpointError(
            f"{contents.folder}: its {weights.description} are not PyTorch safetensors",
            remedy="Save the model with `save_pretrained`, which writes safetensors.",
        )
    shards = {path.name: read_header(path)[0] for path in weights.files}
    _compare_with_index(weights, shards)
    tensors = {tensor: info for shard in shards.values() for tensor, info in shard.items()}
    return Checkpoint(contents, contents.folder, weights.files, tensors, commonest_dtype(tensors))


def open_checkpoint(folder: Path) -> Checkpoint:
    """Find the files of a folder of PyTorch safetensors and check their headers.

    Raises:
        CheckpointError: see `look_over` and `read_checkpoint`.
    """
    return read_checkpoint(look_over(folder))


def copy_along(along: Mapping[str, Path], destination: Path) -> tuple[Path, ...]:
    """Copy files to the given paths in `destination` and return the copies.

    The copies are identical, except for a modules.json that names a subfolder for the transformer: the copy names its
    own folder.
    """
    copies = []
    for name, path in along.items():
        copy = destination / name
        copy.parent.mkdir(exist_ok=True)
        if name == MODULES_FILE and (content := at_the_root(read_bounded(path))) != read_bounded(path):
            copy.write_bytes(content)
        else:
            shutil.copyfile(path, copy)
        copies.append(copy)
    return tuple(copies)


def sha256(path: Path, *, stopped: Callable[[], bool] = bool) -> str:
    """Return the SHA-256 of a file in hexadecimal.

    Args:
        path: path of the file.
        stopped: called before each block is read; once it returns true, the result is not the hash of the whole file.
    """
    digest, part = hashlib.sha256(), memoryview(bytearray(HASHED_PART_BYTES))
    with path.open("rb", buffering=0) as file:
        while not stopped() and (count := file.readinto(part)):
            digest.update(part[:count])
    return digest.hexdigest()


def files_along(root: Path, folder: Path) -> dict[str, Path]:
    """Return the files to copy to the output, by output path.

    Args:
        root: folder that the user gave.
        folder: folder of config.json, see `transformer_folder`.

    Raises:
        CheckpointError: a file is a link that leads out of the folder.
    """
    beside = {path.name: path for place in dict.fromkeys((root, folder)) for path in files_beside(place)}
    along = {name: beside[name] for name in ALONG if name in beside}
    modules = [place for place in folders_in(root) if _MODULE_FOLDER.fullmatch(place.name) and place != folder]
    for place in modules if MODULES_FILE in along else ():
        files = (file_in(place, name) for name in _MODULE_FILES)
        along |= {f"{place.name}/{path.name}": path for path in files if path is not None}
    return along


def _read_config(folder: Path) -> dict[str, Any]:
    path = file_in(folder, "config.json")
    if path is None:
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
    refuse_absurd_sizes(path, config)
    if config.get("pruned_heads"):
        raise UnsupportedError(
            f"{path}: `pruned_heads` says that attention heads were taken out of layers, and transformers 5 has no such models",
            remedy="With transformers 4, load the model and save it with the heads put back, with weights of zero and without"
            " `pruned_heads`.",
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


def _compare_with_index(weights: WeightFiles, shards: Mapping[str, Mapping[str, TensorInfo]]) -> None:
    """Check that every tensor is in the shard that the index names, and that the index names every tensor."""
    if weights.index is None:
        return
    index = weights.index
    for tensor, shard in weights.places.items():
        if tensor not in shards[shard]:
            raise CheckpointError(
                f"{index.parent / shard}: lacks tensor {tensor!r}, which {index.name} places there",
                remedy="Use the index that was saved with these shards.",
            )
    for shard, tensors in shards.items():
        stray = sorted(tensor for tensor in tensors if weights.places.get(tensor) != shard)
        if stray:
            raise CheckpointError(
                f"{index}: does not list tensor {stray[0]!r} of {shard}",
                remedy="Use the index that was saved with these shards.",
            )


def commonest_dtype(tensors: Mapping[str, TensorInfo]) -> str:
    """Return the floating dtype with the most bytes: `fp32`, `fp16`, `bf16` or `fp64`; `fp32` if there is none."""
    sizes: Counter[str] = Counter()
    for tensor in tensors.values():
        if tensor.dtype in DTYPES:
            sizes[DTYPES[tensor.dtype]] += tensor.size_bytes
    return sizes.most_common(1)[0][0] if sizes else "fp32"
