"""Writes an ONNX file whose weights stream from mapped files, one tensor at a time.

A protobuf message is a sequence of fields, each a tag, a length and bytes
(https://protobuf.dev/programming-guides/encoding/); repeated fields may stand anywhere in their message. So the graph
is serialised without its weights, and each weight is appended to it as one more `initializer` field.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
import torch

from hfexport._internal.room import writing

__all__ = ["SINGLE_FILE_LIMIT_BYTES", "Weight", "move_model", "write_model"]

DATA_SUFFIX = "_data"
"""What the name of a file with external weights adds to that of its graph, as Optimum names it."""

SINGLE_FILE_LIMIT_BYTES = 2**31 - 2**24
"""A protobuf message holds less than 2 GiB; what is left is for the graph itself."""

ALIGNMENT_BYTES = 4096
"""External tensors start on a page, so that a runtime can map them (ONNX's `external_data_helper` does the same)."""

_MODEL_GRAPH = (onnx.ModelProto.GRAPH_FIELD_NUMBER << 3) | 2
_GRAPH_INITIALIZER = (onnx.GraphProto.INITIALIZER_FIELD_NUMBER << 3) | 2
_TENSOR_RAW_DATA = (onnx.TensorProto.RAW_DATA_FIELD_NUMBER << 3) | 2


@dataclass(frozen=True)
class Weight:
    """An initializer and where its data lies.

    Attributes:
        name: in the graph.
        data_type: an `onnx.TensorProto` data type.
        shape: in the graph.
        source: the tensor to take the data from; mapped, so it costs no memory until it is read.
        dtype: torch's name of `data_type`.
        transposed: the graph wants the source (a matrix) turned.
    """

    name: str
    data_type: int
    shape: tuple[int, ...]
    source: torch.Tensor
    dtype: torch.dtype
    transposed: bool = False

    @property
    def key(self) -> tuple[int, tuple[int, ...], bool]:
        """Where the data lies, its shape there, and whether it is turned: the same for weights that are one."""
        return self.source.data_ptr(), tuple(self.source.shape), self.transposed

    @property
    def size_bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def data(self) -> memoryview:
        """The bytes as the graph wants them: little-endian, row-major."""
        tensor = self.source.detach().to(self.dtype)
        tensor = (tensor.t() if self.transposed else tensor).contiguous()
        return tensor.reshape(-1).view(torch.uint8).numpy().data


def write_model(
    skeleton: onnx.ModelProto, weights: Iterable[Weight], path: Path, advance: Callable[[int], None], *, external: bool
) -> list[Path]:
    """Write `skeleton`, a model whose graph lacks `weights`, together with them.

    Args:
        skeleton: everything but the weights; its graph is emptied.
        weights: in the order in which they are written.
        path: such as `model.onnx`; external weights lie beside it, in `model.onnx_data`.
        advance: is told the bytes of each weight that was written.
        external: put the weights beside the graph.

    Returns:
        The files written, the graph first.

    Raises:
        ExportError: the disk has no room for them.
    """
    weights = list(weights)
    with writing(path.parent, sum(weight.size_bytes for weight in weights) + skeleton.ByteSize()):
        return _write(skeleton, weights, path, advance, external=external)


def _write(
    skeleton: onnx.ModelProto, weights: Sequence[Weight], path: Path, advance: Callable[[int], None], *, external: bool
) -> list[Path]:
    if external:
        data_path = path.with_name(path.name + DATA_SUFFIX)
        with data_path.open("wb") as file:
            for weight in weights:
                skeleton.graph.initializer.append(_write_external(weight, file, data_path.name))
                advance(weight.size_bytes)
        path.write_bytes(skeleton.SerializeToString(deterministic=True))
        return [path, data_path]
    graph = skeleton.graph.SerializeToString(deterministic=True)
    skeleton.ClearField("graph")
    headers = [_header(weight) for weight in weights]
    fields = [
        (_varint(_GRAPH_INITIALIZER), header + _varint(_TENSOR_RAW_DATA) + _varint(weight.size_bytes), weight)
        for header, weight in zip(headers, weights, strict=True)
    ]
    lengths = [len(header) + weight.size_bytes for _, header, weight in fields]
    total = len(graph) + sum(
        len(tag) + len(_varint(length)) + length for (tag, _, _), length in zip(fields, lengths, strict=True)
    )
    with path.open("wb") as file:
        file.write(skeleton.SerializeToString(deterministic=True))
        file.write(_varint(_MODEL_GRAPH) + _varint(total))
        file.write(graph)
        for (tag, header, weight), length in zip(fields, lengths, strict=True):
            file.write(tag + _varint(length) + header)
            file.write(weight.data())
            advance(weight.size_bytes)
    return [path]


def move_model(path: Path, target: Path) -> Path:
    """Move an ONNX file to `target`, and its external data beside it, named after it.

    Args:
        path: of the graph; its weights, if they are external, lie in a file of its name and `_data`.
        target: the new path of the graph; what lies there is replaced.

    Returns:
        `target`.
    """
    data = path.with_name(path.name + DATA_SUFFIX)
    if data.is_file():
        new_data = target.with_name(target.name + DATA_SUFFIX)
        if new_data.name != data.name:
            model = onnx.load(path, load_external_data=False)
            for tensor in _initializers(model.graph):
                for entry in tensor.external_data:
                    if entry.key == "location":
                        entry.value = new_data.name
            path.write_bytes(model.SerializeToString(deterministic=True))
        shutil.move(data, new_data)
    shutil.move(path, target)
    return target


def _initializers(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Those of a graph and of the branches in it."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                yield from _initializers(inner)


def _header(weight: Weight) -> bytes:
    tensor = onnx.TensorProto(name=weight.name, data_type=weight.data_type, dims=weight.shape)
    return bytes(tensor.SerializeToString(deterministic=True))


def _write_external(weight: Weight, file: BinaryIO, file_name: str) -> onnx.TensorProto:
    offset = -(-file.tell() // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    file.seek(offset)
    file.write(weight.data())
    tensor = onnx.TensorProto(name=weight.name, data_type=weight.data_type, dims=weight.shape)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    location: Mapping[str, object] = {"location": file_name, "offset": offset, "length": weight.size_bytes}
    for key, value in location.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _varint(value: int) -> bytes:
    """Base-128 with the least significant group first."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)
