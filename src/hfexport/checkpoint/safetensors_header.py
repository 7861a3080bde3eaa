"""Reads what a safetensors file says it holds, and checks that it can: no tensor data is read.

The format: eight bytes of header length (little-endian), a JSON header, then the tensors' bytes without holes
(https://huggingface.co/docs/safetensors/index#format).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfexport.errors import CheckpointError

__all__ = ["TensorInfo", "read_header"]

MAX_HEADER_BYTES = 100_000_000
"""The bound that the safetensors library itself sets."""

ITEM_BYTES = {
    **{"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1},
    **{"U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1},
}

_LFS_POINTER = b"version https://git-lfs"
_AGAIN = "Copy or download the file again."


@dataclass(frozen=True)
class TensorInfo:
    """A tensor in a file: its dtype in safetensors' words, its shape, and how many bytes it takes."""

    dtype: str
    shape: tuple[int, ...]
    size_bytes: int


def read_header(path: Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """The tensors and the metadata of a safetensors file.

    Raises:
        CheckpointError: the file is missing, truncated, not safetensors, or contradicts itself.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            if prefix == _LFS_POINTER[:8]:
                raise CheckpointError(
                    f"{path}: is a Git LFS pointer, not the weights",
                    remedy="Run `git lfs pull`, or check out with `lfs: true`.",
                )
            if len(prefix) < 8:
                raise CheckpointError(f"{path}: has {size} bytes, too few for a safetensors file", remedy=_AGAIN)
            length = int.from_bytes(prefix, "little")
            if length > min(size - 8, MAX_HEADER_BYTES):
                raise CheckpointError(
                    f"{path}: says its header has {length} bytes, but the file has {size}",
                    remedy=f"It is truncated or no safetensors file. {_AGAIN}",
                )
            raw = file.read(length)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}", remedy=_AGAIN) from error
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its header is not JSON", remedy=_AGAIN) from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: its header is no JSON object", remedy=_AGAIN)
    metadata = header.pop("__metadata__", None) or {}
    _refuse_other_frameworks(path, metadata)
    tensors: dict[str, TensorInfo] = {}
    spans: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        info, begin = _tensor(path, name, entry)
        tensors[name] = info
        spans.append((begin, begin + info.size_bytes, name))
    _refuse_gaps(path, sorted(spans), size - 8 - length)
    return tensors, metadata


def _refuse_other_frameworks(path: Path, metadata: Any) -> None:
    framework = metadata.get("format", "pt") if isinstance(metadata, dict) else None
    if framework not in ("pt", "mlx"):
        raise CheckpointError(
            f"{path}: its metadata says format {framework!r}: weights with other names, which would load as random ones",
            remedy="Save the model as PyTorch safetensors (format pt).",
        )


def _tensor(path: Path, name: str, entry: Any) -> tuple[TensorInfo, int]:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        numbers = (*shape, begin, end)
        well_formed = all(isinstance(number, int) and number >= 0 for number in numbers)
    except (KeyError, TypeError, ValueError):
        well_formed = False
    if not well_formed:
        raise CheckpointError(f"{path}: tensor {name!r} is not described as the format demands", remedy=_AGAIN)
    if dtype not in ITEM_BYTES:
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
    return TensorInfo(dtype, tuple(shape), size), begin


def _refuse_gaps(path: Path, spans: list[tuple[int, int, str]], data_bytes: int) -> None:
    position = 0
    for begin, end, name in spans:
        if begin != position:
            raise CheckpointError(f"{path}: tensor {name!r} starts at {begin}, not at {position}", remedy=_AGAIN)
        position = end
    if position != data_bytes:
        what = f"{position - data_bytes} bytes are missing" if position > data_bytes else "bytes follow its last tensor"
        raise CheckpointError(
            f"{path}: its header describes {position} bytes of tensors, the file holds {data_bytes}: {what}",
            remedy=_AGAIN,
        )
