"""Child process that converts weights; damaged files can crash only this process.

See `hfexport._internal.workers`. Torch is imported only to match TensorFlow names with a model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from hfexport._internal.messages import plain, read
from hfexport.checkpoint import keras_file, safetensors_header, torch_file
from hfexport.checkpoint.contained import files_beside
from hfexport.checkpoint.quantized import refuse_plain_weights, without_quantization
from hfexport.checkpoint.stored import StoredTensor, same_data
from hfexport.errors import CheckpointError
from hfexport.modeling.conversion.messages import ConversionAnswer, ConversionJob
from hfexport.modeling.conversion.safetensors_writer import write_safetensors
from hfexport.modeling.wrapped_names import unwrapped_names

__all__ = ["run"]

_NOT_BESIDE: Final = ("config.json", "adapter_config.json")


def run(job: Mapping[str, Any]) -> dict[str, Any]:
    """Write config.json and model.safetensors to a folder, and link the other files of the source.

    Takes a `ConversionJob` and returns a `ConversionAnswer`.
    """
    asked = read(job, ConversionJob)
    source, folder = Path(asked.source), Path(asked.folder)
    stored = _read(asked.format, [Path(path) for path in asked.files], sharded=asked.sharded)
    config = (source / "config.json").read_bytes()
    left_out: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    if asked.format.startswith("tensorflow"):
        from hfexport.modeling.conversion.tensorflow import place_weights

        placed = place_weights(source, asked.architectures, stored)
        stored, left_out = list(placed.tensors), placed.left_out
        if placed.untied:
            config = json.dumps({**json.loads(config), "tie_word_embeddings": False}).encode()
    if asked.dequantise:
        from hfexport.modeling.conversion.quantised import dequantise

        values = json.loads(config)
        refuse_plain_weights(source / "config.json", values, {tensor.name: tensor for tensor in stored})
        stored = dequantise(values, stored)
        config = json.dumps(without_quantization(values)).encode()
    if asked.unwrap:
        stored, removed = _unwrapped(source, json.loads(config), stored)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        (folder / "config.json").write_bytes(config)
        for path in files_beside(source):
            if path.name not in _NOT_BESIDE and not path.name.endswith(".index.json"):
                (folder / path.name).symlink_to(path)
        write_safetensors(folder / "model.safetensors", stored)
    except OSError as error:
        size_bytes = sum(tensor.size_bytes for tensor in stored)
        raise CheckpointError(
            f"{source}: converting its weights needs {size_bytes} bytes beside the output: {error.strerror}",
            remedy="Choose an output folder on a disk with room for another copy of the weights.",
        ) from error
    return plain(ConversionAnswer(left_out=tuple(left_out), removed_prefixes=removed))


def _unwrapped(
    source: Path, config: Mapping[str, Any], stored: Sequence[StoredTensor]
) -> tuple[list[StoredTensor], tuple[str, ...]]:
    """Return the tensors under the model's names, and the prefixes that were removed."""
    found = unwrapped_names(source, config, [tensor.name for tensor in stored])
    return [replace(tensor, name=found.names[tensor.name]) for tensor in stored], found.removed


def _read(weight_format: str, files: Sequence[Path], *, sharded: bool) -> list[StoredTensor]:
    """Return all tensors of all files. Duplicates must be equal: Keras stores a shared layer with each of its users."""
    tensors: dict[str, StoredTensor] = {}
    for path in files:
        for tensor in _read_file(weight_format, path, sharded=sharded):
            if not same_data(tensors.setdefault(tensor.name, tensor), tensor):
                raise CheckpointError(
                    f"{path}: holds tensor {tensor.name!r} a second time, with other values",
                    remedy="Restore the files.",
                )
    if not tensors:
        raise CheckpointError(f"{files[0]}: holds no weights", remedy="Copy or download the file again.")
    return list(tensors.values())


def _read_file(weight_format: str, path: Path, *, sharded: bool) -> list[StoredTensor]:
    match weight_format:
        case "pytorch":
            return torch_file.stored_tensors(path)
        case "tensorflow-h5":
            return keras_file.stored_tensors(path, shard=sharded)
        case _:
            return safetensors_header.stored_tensors(path)
