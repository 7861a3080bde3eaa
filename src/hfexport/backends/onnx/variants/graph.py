"""Read an ONNX file without its weights, and derive new weights from them one tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import external_data_helper, helper, numpy_helper

__all__ = ["Derived", "Opened", "Stored", "graphs_of", "open_model"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Stored:
    """An initializer of a file, whose data is read when it is needed.

    Attributes:
        name: name in the graph.
        data_type: data type of `onnx.TensorProto`.
        shape: shape in the graph.
        read: returns the data; external data is mapped.
    """

    name: str
    data_type: int
    shape: tuple[int, ...]
    read: Callable[[], Array]

    @property
    def size_bytes(self) -> int:
        itemsize = helper.tensor_dtype_to_np_dtype(self.data_type).itemsize
        return int(np.prod(self.shape, dtype=np.int64)) * itemsize

    @property
    def is_float(self) -> bool:
        """Return whether the elements are float32 or float16."""
        return self.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)

    def data(self) -> memoryview:
        """Return the data as it is written: little-endian, row-major."""
        return _bytes(self.read())


@dataclass
class _Parts:
    """Several arrays that one computation returns; those but the first are kept, since they are small."""

    compute: Callable[[], tuple[Array, ...]]
    kept: dict[int, Array] = field(default_factory=dict)

    def get(self, index: int) -> Array:
        if index in self.kept:
            return self.kept[index]
        arrays = self.compute()
        self.kept = {number: array for number, array in enumerate(arrays) if number}
        return arrays[index]


@dataclass(frozen=True)
class Derived:
    """A new initializer, computed when it is written. Attributes as in `Stored`."""

    name: str
    data_type: int
    shape: tuple[int, ...]
    parts: _Parts
    index: int

    @property
    def size_bytes(self) -> int:
        itemsize = helper.tensor_dtype_to_np_dtype(self.data_type).itemsize
        return int(np.prod(self.shape, dtype=np.int64)) * itemsize

    def data(self) -> memoryview:
        """Return the data as it is written: little-endian, row-major."""
        array = self.parts.get(self.index)
        assert array.shape == self.shape, f"{self.name}: {array.shape} is not {self.shape}"
        return _bytes(array)

    @classmethod
    def group(
        cls, described: Mapping[str, tuple[int, tuple[int, ...]]], compute: Callable[[], tuple[Array, ...]]
    ) -> list[Derived]:
        """Return initializers that one computation gives together.

        Args:
            described: data type and shape by name, the largest first; it is written first.
            compute: returns the arrays in the same order.
        """
        parts = _Parts(compute)
        return [
            cls(name, data_type, shape, parts, index)
            for index, (name, (data_type, shape)) in enumerate(described.items())
        ]


def _bytes(array: Array) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


@dataclass
class Opened:
    """An ONNX model whose initializers were taken out of the graph.

    Attributes:
        model: the model without initializers.
        weights: its initializers by name.
    """

    model: onnx.ModelProto
    weights: dict[str, Stored | Derived]

    def add_domain(self, domain: str, version: int) -> None:
        """Import an operator set, unless the model does so."""
        if all(entry.domain != domain for entry in self.model.opset_import):
            self.model.opset_import.append(helper.make_opsetid(domain, version))

    def keep_domains(self, used: Iterable[str]) -> None:
        """Remove the operator sets of other domains.

        ONNX Runtime's optimisers import all that they know, and an older runtime refuses a newer set that no node uses.
        """
        kept = [entry for entry in self.model.opset_import if entry.domain in {"", *used}]
        del self.model.opset_import[:]
        self.model.opset_import.extend(kept)


def open_model(path: Path, model: onnx.ModelProto | None = None) -> Opened:
    """Open an ONNX file; external weights stay in their file.

    Args:
        path: path of the file.
        model: its content, if it was read before.
    """
    model = onnx.load(path, load_external_data=False) if model is None else model
    weights: dict[str, Stored | Derived] = {}
    for tensor in model.graph.initializer:
        kept = onnx.TensorProto()
        kept.CopyFrom(tensor)
        weights[tensor.name] = Stored(tensor.name, tensor.data_type, tuple(tensor.dims), _reader(kept, path.parent))
    model.graph.ClearField("initializer")
    return Opened(model, weights)


def _reader(tensor: onnx.TensorProto, folder: Path) -> Callable[[], Array]:
    if not external_data_helper.uses_external_data(tensor):
        return lambda: numpy_helper.to_array(tensor)
    info = external_data_helper.ExternalDataInfo(tensor)
    dtype, shape = helper.tensor_dtype_to_np_dtype(tensor.data_type), tuple(tensor.dims)
    if not all(shape):
        return lambda: np.zeros(shape, dtype)
    offset = int(getattr(info, "offset", None) or 0)
    return lambda: np.memmap(folder / info.location, dtype, "r", offset, shape)


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and all its branches."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            inner = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else list(attribute.graphs)
            for branch in inner:
                yield from graphs_of(branch)
