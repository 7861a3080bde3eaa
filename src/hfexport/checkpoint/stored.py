"""Tensors as they lie in files: what each is, and its data, mapped rather than read. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ITEM_BYTES", "MAX_RANK", "NUMPY_DTYPES", "StoredTensor", "map_array", "same_data"]

NUMPY_DTYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        **{"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"},
        **{"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1"},
        **{"U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1", "F8_E4M3": "|u1", "F8_E5M2": "|u1"},
    }
)
"""By dtype in safetensors' words: what numpy reads it as. Floats that numpy lacks are read as integers of their size."""

ITEM_BYTES: Final[Mapping[str, int]] = MappingProxyType({name: int(code[-1]) for name, code in NUMPY_DTYPES.items()})

COMPARED_BYTES: Final = 2**24

MAX_RANK: Final = 16
"""More axes than a weight of any model has."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file.

    Attributes:
        name: in the file.
        dtype: in safetensors' words, such as `F32`.
        shape: in the file.
        read: gives its data, of `NUMPY_DTYPES[dtype]`; mapped from the file where it can be.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], NDArray[Any]]

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


def map_array(
    path: Path, dtype: str, shape: Sequence[int], offset_bytes: int, strides: Sequence[int] | None = None
) -> NDArray[Any]:
    """The data of a tensor in a file, mapped read-only.

    Args:
        path: the file.
        dtype: in safetensors' words.
        shape: of the tensor.
        offset_bytes: where its first element lies.
        strides: in elements, none negative; row-major if left out. The caller has checked that they stay in the file.
    """
    import numpy as np

    numpy_dtype = np.dtype(NUMPY_DTYPES[dtype])
    if math.prod(shape) == 0:
        return np.empty(tuple(shape), numpy_dtype)
    if strides is None:
        return np.memmap(path, numpy_dtype, "r", offset_bytes, tuple(shape))
    span = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    flat = np.memmap(path, numpy_dtype, "r", offset_bytes, (span,))
    steps = [stride * numpy_dtype.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(flat, tuple(shape), steps, writeable=False)


def same_data(one: StoredTensor, other: StoredTensor) -> bool:
    """Whether two tensors of the same file format are equal, byte for byte; read a piece at a time."""
    import numpy as np

    if one is other or (one.dtype, one.shape) != (other.dtype, other.shape):
        return one is other
    first, second = (np.ascontiguousarray(tensor.read()).reshape(-1).view(np.uint8) for tensor in (one, other))
    pieces = range(0, len(first), COMPARED_BYTES)
    return all(np.array_equal(first[at : at + COMPARED_BYTES], second[at : at + COMPARED_BYTES]) for at in pieces)
