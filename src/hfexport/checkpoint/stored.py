"""Tensors in files: name, dtype, shape and mapped data. Torch-free."""

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
"""Numpy dtype for each of safetensors' dtypes. Floats that numpy lacks are read as integers of the same size."""

ITEM_BYTES: Final[Mapping[str, int]] = MappingProxyType({name: int(code[-1]) for name, code in NUMPY_DTYPES.items()})

COMPARED_BYTES: Final = 2**24

MAX_RANK: Final = 16
"""Limit of the number of axes, above that of any model's weights."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file.

    Attributes:
        name: name in the file.
        dtype: safetensors' name, such as `F32`.
        shape: shape in the file.
        read: returns the data as `NUMPY_DTYPES[dtype]`, mapped from the file if possible.
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
    """Map the data of a tensor in a file, read-only.

    Args:
        path: path of the file.
        dtype: safetensors' name.
        shape: shape of the tensor.
        offset_bytes: offset of the first element.
        strides: strides in elements, none negative; row-major by default. The caller has checked that they stay in the
            file.
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
    """Return whether two tensors of the same file format are equal byte for byte; data is read in pieces."""
    import numpy as np

    if one is other or (one.dtype, one.shape) != (other.dtype, other.shape):
        return one is other
    first, second = (np.ascontiguousarray(tensor.read()).reshape(-1).view(np.uint8) for tensor in (one, other))
    pieces = range(0, len(first), COMPARED_BYTES)
    return all(np.array_equal(first[at : at + COMPARED_BYTES], second[at : at + COMPARED_BYTES]) for at in pieces)
