"""Read weights that Keras wrote to HDF5 (`tf_model.h5`): names from the file's tree, data mapped. Needs no TensorFlow.

A whole file has a group per layer, with each weight under `{layer}/{model}/{path of the weight}:0`. A shard has each
weight under its path (`save_pretrained` and `tf_shard_checkpoint` in transformers 4.44). Keras stores every weight as
one contiguous block, so HDF5 is only used to find the offsets.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from hfexport.checkpoint.lfs import refuse_pointer
from hfexport.checkpoint.stored import ITEM_BYTES, MAX_RANK, StoredTensor, map_array
from hfexport.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import h5py

__all__ = ["stored_tensors"]

MAX_TENSORS: Final = 200_000

_SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
_DTYPES: Final[Mapping[str, str]] = MappingProxyType(
    {"<f8": "F64", "<f4": "F32", "<f2": "F16", "<i8": "I64", "<i4": "I32", "|i1": "I8", "|u1": "U8", "|b1": "BOOL"}
)
_AGAIN: Final = "Copy or download the file again."
_TOP_LEVEL: Final = "top_level_model_weights"
_FAILURES: Final = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, MemoryError)
"""Exceptions that h5py raises for HDF5 errors. HDF5 may crash on a damaged file, so a child process calls this."""


def stored_tensors(path: Path, *, shard: bool) -> list[StoredTensor]:
    """Return the mapped weights of an HDF5 file by their TensorFlow names, such as `bert/pooler/dense/kernel:0`.

    Args:
        path: the file.
        shard: whether the file is a shard of an index, in which names have another form.

    Raises:
        CheckpointError: the file is damaged, or stores a weight in a form that Keras does not write.
    """
    import h5py

    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(len(_SIGNATURE))
    refuse_pointer(path, start)
    if start != _SIGNATURE:
        raise CheckpointError(f"{path}: is no HDF5 file", remedy=_AGAIN)
    found: list[StoredTensor] = []

    def visit(name: str, item: Any) -> bool | None:
        if isinstance(item, h5py.Dataset):
            found.append(_tensor(path, _weight_name(name, shard=shard), item, size_bytes))
        return True if len(found) > MAX_TENSORS else None

    try:
        with h5py.File(path, "r") as content:
            too_many = content.visititems(visit)
    except _FAILURES as error:
        raise CheckpointError(f"{path}: is a damaged HDF5 file: {error}", remedy=_AGAIN) from error
    if too_many:
        raise CheckpointError(f"{path}: holds more than {MAX_TENSORS} weights")
    return found


def _weight_name(name: str, *, shard: bool) -> str:
    """Remove the layer and the model from the start of a weight's name."""
    parts = name.split("/")
    if shard or len(parts) < 3:
        return name
    return "/".join(parts[1:] if parts[0] == _TOP_LEVEL else parts[2:])


def _tensor(path: Path, name: str, dataset: h5py.Dataset, size_bytes: int) -> StoredTensor:
    shape, dtype = tuple(dataset.shape or ()), _DTYPES.get(dataset.dtype.str)
    if dtype is None or len(shape) > MAX_RANK:
        raise CheckpointError(f"{path}: weight {name} has dtype {dataset.dtype} and shape {shape}, which no model has")
    offset = dataset.id.get_offset()
    length = math.prod(shape) * ITEM_BYTES[dtype]
    if dataset.external or dataset.is_virtual or dataset.chunks is not None or (offset is None and length):
        raise CheckpointError(
            f"{path}: weight {name} is compressed, in pieces or in another file, as Keras never writes it",
            remedy="Load it where you trust it, and save the model with `save_pretrained`.",
        )
    if offset is not None and offset + length > size_bytes:
        raise CheckpointError(
            f"{path}: weight {name} of shape {shape} needs {length} bytes at {offset}, the file has {size_bytes}",
            remedy=f"It is truncated. {_AGAIN}",
        )
    return StoredTensor(name, dtype, shape, partial(map_array, path, dtype, shape, offset or 0))
