"""Write a safetensors file tensor by tensor, with at most one tensor in memory. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from hfexport.checkpoint.stored import ITEM_BYTES, StoredTensor

__all__ = ["write_safetensors"]


def _ignore(size_bytes: int) -> None:
    del size_bytes


def write_safetensors(path: Path, tensors: Sequence[StoredTensor], *, advance: Callable[[int], None] = _ignore) -> None:
    """Write `tensors` as a PyTorch checkpoint's weights (`format: pt`).

    The widest dtypes come first, so that every tensor is aligned to its item size and can be mapped. Format:
    https://huggingface.co/docs/safetensors/index#format.

    Args:
        path: path of the file.
        tensors: tensors, read one at a time.
        advance: called with the size of each written tensor in bytes.

    Raises:
        OSError: the file cannot be written.
    """
    import numpy as np

    ordered = sorted(tensors, key=lambda tensor: (-ITEM_BYTES[tensor.dtype], tensor.name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for tensor in ordered:
        end = position + tensor.size_bytes
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [position, end]}
        position = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for tensor in ordered:
            array = np.ascontiguousarray(tensor.read())
            assert array.nbytes == tensor.size_bytes, f"{tensor.name}: {array.nbytes} bytes for {tensor.size_bytes}"
            file.write(array.reshape(-1).view(np.uint8).data)
            advance(tensor.size_bytes)
