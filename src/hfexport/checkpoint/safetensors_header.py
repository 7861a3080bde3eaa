"""Read and check the header of a safetensors file without reading tensor data.

Format: eight bytes of header length (little-endian), a JSON header, then the tensors' bytes without gaps
(https://huggingface.co/docs/safetensors/index#format).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from hfexport.checkpoint.json_file import read_json_bytes
from hfexport.checkpoint.lfs import refuse_pointer
from hfexport.checkpoint.stored import ITEM_BYTES, MAX_RANK, StoredTensor, map_array
from hfexport.errors import CheckpointError

__all__ = ["TensorInfo", "read_header", "stored_tensors"]

MAX_HEADER_BYTES: Final = 2**25
"""Size limit of a header: enough for 250,000 tensors. The safetensors library allows 100 MB, whose JSON would need
GBs."""

_AGAIN = "Copy or download the file again."


@dataclass(frozen=True)
class TensorInfo:
    """Dtype (by safetensors' name), shape, size in bytes and offset of a tensor in a file."""

    dtype: str
    shape: tuple[int, ...]
    size_bytes: int
    offset_bytes: int


def read_header(path: Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file.

    Raises:
        CheckpointError: the file is missing, truncated, inconsistent, or not safetensors.
    """
    raw, size = _raw_header(path)
    header = read_json_bytes(raw, f"{path}: its header")
    start = 8 + len(raw)
    metadata = header.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{path}: its metadata is no JSON object of strings", remedy=_AGAIN)
    tensors = {name: _tensor(path, name, entry, start) for name, entry in header.items()}
    _refuse_gaps(path, tensors, start, size)
    return tensors, metadata


def stored_tensors(path: Path) -> list[StoredTensor]:
    """Return the tensors of a safetensors file, mapped.

    Raises:
        CheckpointError: see `read_header`.
    """
    tensors, _ = read_header(path)
    return [
        StoredTensor(name, info.dtype, info.shape, partial(map_array, path, info.dtype, info.shape, info.offset_bytes))
        for name, info in tensors.items()
    ]


def _raw_header(path: Path) -> tuple[bytes, int]:
    """Return the header's bytes and the size of the file."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            refuse_pointer(path, prefix)
            if len(prefix) < 8:
                raise CheckpointError(f"{path}: has {size} bytes, too few for a safetensors file", remedy=_AGAIN)
            length = int.from_bytes(prefix, "little")
            if length > min(size - 8, MAX_HEADER_BYTES):
                raise CheckpointError(
                    f"{path}: says its header has {length} bytes, but the file has {size}",
                    remedy=f"It is truncated or no safetensors file. {_AGAIN}",
                )
            return file.read(length), size
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}", remedy=_AGAIN) from error


def _tensor(path: Path, name: str, entry: Any, start: int) -> TensorInfo:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        well_formed = len(shape) <= MAX_RANK and all(
            type(number) is int and number >= 0 for number in (*shape, begin, end)
        )
    except (KeyError, TypeError, ValueError):
        well_formed = False
    if not well_formed:
        raise CheckpointError(f"{path}: tensor {name!r} is not described as the format requires", remedy=_AGAIN)
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise CheckpointError(
            f"{path}: tensor {name!r} has dtype {dtype!r}, which hfexport does not read",
            remedy=f"Save it as one of {', '.join(ITEM_BYTES)}.",
        )
    size = math.prod(shape) * ITEM_BYTES[dtype]
    if end - begin != size:
        raise CheckpointError(
            f"{path}: tensor {name!r} of shape {shape} and dtype {dtype} needs {size} bytes, its offsets give"
            f" {end - begin}",
            remedy=_AGAIN,
        )
    return TensorInfo(dtype, tuple(shape), size, start + begin)


def _refuse_gaps(path: Path, tensors: Mapping[str, TensorInfo], start: int, end: int) -> None:
    position = start
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].offset_bytes, item[1].size_bytes)):
        if info.offset_bytes != position:
            raise CheckpointError(
                f"{path}: tensor {name!r} starts at {info.offset_bytes - start}, not at {position - start}",
                remedy=_AGAIN,
            )
        position += info.size_bytes
    if position != end:
        what = f"{position - end} bytes are missing" if position > end else "bytes follow its last tensor"
        raise CheckpointError(
            f"{path}: its header describes {position - start} bytes of tensors, the file holds {end - start}: {what}",
            remedy=_AGAIN,
        )
