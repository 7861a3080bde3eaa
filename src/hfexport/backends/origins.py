"""Fill a template from a checkpoint's files, without torch and without loading the model.

`hfexport.backends.tracing_back` finds the tensor of the checkpoint that fills each weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import onnx

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hfexport.checkpoint.stored import StoredTensor

__all__ = ["CheckpointWeight", "Origin", "Origins", "StoredWeight", "open_weights"]

NUMPY_DTYPES: Final[Mapping[int, str]] = {
    onnx.TensorProto.FLOAT: "<f4",
    onnx.TensorProto.FLOAT16: "<f2",
    onnx.TensorProto.DOUBLE: "<f8",
    onnx.TensorProto.INT64: "<i8",
    onnx.TensorProto.INT32: "<i4",
    onnx.TensorProto.BOOL: "|b1",
}

_FLOATING: Final = frozenset(("F64", "F32", "F16", "BF16"))
_WIDE: Final = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
_TILE: Final = 256
"""Rows and columns that are transposed at once, so that both sides stay in the processor's cache."""


class StoredWeight(msgspec.Struct, frozen=True):
    """A weight of a template, and the origin of its data.

    Attributes:
        name: name in the file.
        data_type: data type of `onnx.TensorProto`.
        shape: shape in the file.
        branch: index of the graph in the file.
        tensor: name of the parameter or buffer of that graph's module; empty for a constant.
        constant: data of a tensor that the model creates while it is captured, little-endian and row-major.
        transposed: the file holds the transpose of the tensor (a matrix).
    """

    name: str
    data_type: int
    shape: tuple[int, ...]
    branch: int
    tensor: str
    constant: bytes = b""
    transposed: bool = False


class Origin(msgspec.Struct, frozen=True):
    """Data of one weight: a tensor of the checkpoint, by name, or bytes that the model's constructor computes."""

    tensor: str
    constant: bytes = b""


class Origins(msgspec.Struct, frozen=True):
    """Origins of the weights of one file.

    Attributes:
        graph: name of the graph, which names its file.
        task: task that is stored in the file.
        key: key of its template.
        weights: origin of each of the template's weights, in their order.
    """

    graph: str
    task: str
    key: str
    weights: tuple[Origin, ...]


@dataclass(frozen=True)
class CheckpointWeight:
    """An initializer whose data is a tensor of the checkpoint; see `hfexport.backends.onnx.writer.Data`.

    Attributes:
        name: name in the graph.
        data_type: data type of `onnx.TensorProto`.
        shape: shape in the graph.
        stored: tensor with the data, which is mapped from the checkpoint.
        transposed: the graph expects the transpose of the tensor (a matrix).
    """

    name: str
    data_type: int
    shape: tuple[int, ...]
    stored: StoredTensor
    transposed: bool = False

    @property
    def size_bytes(self) -> int:
        return prod(self.shape) * np.dtype(NUMPY_DTYPES[self.data_type]).itemsize

    def data(self) -> memoryview:
        """Return the data in the graph's layout: little-endian, row-major."""
        array = in_dtype(self.stored.read(), self.stored.dtype, NUMPY_DTYPES[self.data_type])
        array = _turned(array) if self.transposed else np.ascontiguousarray(array)
        return array.reshape(-1).view(np.uint8).data


@dataclass(frozen=True)
class _Constant:
    """An initializer with data of its own."""

    name: str
    data_type: int
    shape: tuple[int, ...]
    content: bytes

    @property
    def size_bytes(self) -> int:
        return len(self.content)

    def data(self) -> memoryview:
        return memoryview(self.content)


def in_dtype(array: NDArray[Any], stored: str, wanted: str) -> NDArray[Any]:
    """Convert data from the dtype `stored` (safetensors' name), rounded as torch rounds, to numpy's dtype `wanted`."""
    if stored == "BF16":  # the upper half of a float32; numpy reads it as an unsigned integer
        array = (array.astype("<u4") << 16).view("<f4")
    with np.errstate(over="ignore"):
        return array.astype(wanted, copy=False)


def _turned(matrix: NDArray[Any]) -> NDArray[Any]:
    """Return the transpose of a matrix, row-major."""
    rows, columns = matrix.shape
    turned = np.empty((columns, rows), matrix.dtype)
    for row in range(0, rows, _TILE):
        for column in range(0, columns, _TILE):
            turned[column : column + _TILE, row : row + _TILE] = matrix[row : row + _TILE, column : column + _TILE].T
    return turned


def open_weights(
    weights: Sequence[StoredWeight], origins: Origins, stored: Mapping[str, StoredTensor]
) -> Sequence[CheckpointWeight | _Constant]:
    """Return the weights of a template with their data, which stays mapped.

    Raises:
        ValueError: the checkpoint has no tensor of the size and kind of a weight.
    """
    found: list[CheckpointWeight | _Constant] = []
    if len(weights) != len(origins.weights):
        raise ValueError("it describes other weights than its template has")
    for weight, origin in zip(weights, origins.weights, strict=True):
        if weight.data_type not in NUMPY_DTYPES:
            raise ValueError(f"it describes no weight by {weight.name}")
        one = _opened(weight, origin, stored)
        if one is None:
            raise ValueError(f"the checkpoint has no tensor for {weight.name}")
        found.append(one)
    return found


def _opened(weight: Any, origin: Origin, stored: Mapping[str, StoredTensor]) -> CheckpointWeight | _Constant | None:
    """Return a weight with its data; `None` if the data has another size or kind."""
    if not origin.tensor:
        fits = len(origin.constant) == prod(weight.shape) * np.dtype(NUMPY_DTYPES[weight.data_type]).itemsize
        return _Constant(weight.name, weight.data_type, weight.shape, origin.constant) if fits else None
    tensor = stored.get(origin.tensor)
    if tensor is None or prod(tensor.shape) != prod(weight.shape) or not _converts(tensor, weight):
        return None
    if weight.transposed and len(tensor.shape) != 2:
        return None
    return CheckpointWeight(weight.name, weight.data_type, weight.shape, tensor, weight.transposed)


def _converts(tensor: StoredTensor, weight: Any) -> bool:
    """Return whether a tensor has the kind of a weight: floating tensors convert, others must be equal."""
    from hfexport.checkpoint.stored import NUMPY_DTYPES as STORED_DTYPES

    if tensor.dtype in _FLOATING:
        return weight.data_type in _WIDE
    return STORED_DTYPES[tensor.dtype] == NUMPY_DTYPES[weight.data_type]
