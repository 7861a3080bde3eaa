"""Write an ONNX file, streaming its weights from mapped files one tensor at a time.

A protobuf message is a sequence of fields, each a tag, a length and bytes
(https://protobuf.dev/programming-guides/encoding/), in any order. The graph is serialised without its weights, and each
weight is appended as another `initializer` field.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import onnx

from hfexport._internal.room import writing
from hfexport._internal.varint import varint
from hfexport.backends.base import Data

__all__ = ["SINGLE_FILE_LIMIT_BYTES", "move_model", "set_metadata", "write_model"]

DATA_SUFFIX = "_data"
"""Suffix of an external weights file, after the graph's file name, as in Optimum."""

SINGLE_FILE_LIMIT_BYTES = 2**31 - 2**24
"""Limit of embedded weights: a protobuf message holds less than 2 GiB, and the rest is for the graph itself."""

ALIGNMENT_BYTES = 4096
"""Alignment of external tensors to pages, so that a runtime can map them, as in ONNX's `external_data_helper`."""

SHAPE_LIMIT_BYTES = 64
"""Largest size of an int64 tensor that can be a shape: eight axes."""

_MODEL_GRAPH = (onnx.ModelProto.GRAPH_FIELD_NUMBER << 3) | 2
_GRAPH_INITIALIZER = (onnx.GraphProto.INITIALIZER_FIELD_NUMBER << 3) | 2
_TENSOR_RAW_DATA = (onnx.TensorProto.RAW_DATA_FIELD_NUMBER << 3) | 2


def write_model(
    skeleton: onnx.ModelProto,
    weights: Iterable[Data],
    path: Path,
    advance: Callable[[int], None],
    *,
    external: bool,
    chunk_bytes: int | None = None,
) -> list[Path]:
    """Write `skeleton`, a model whose graph lacks `weights`, and the weights.

    Args:
        skeleton: model without its weights; its graph is emptied.
        weights: weights in the order in which they are written.
        path: path of the graph, such as `model.onnx`; external weights go to `model.onnx_data`.
        advance: called with the size of each written weight in bytes.
        external: write the weights to a separate file.
        chunk_bytes: largest size of such a file, unless a single weight is larger; further ones are named
            `model.onnx_data_1` and so on. `None` for one file.

    Returns:
        The written files, the graph first.

    Raises:
        ExportError: the disk is full.
    """
    weights = list(weights)
    with writing(path.parent, sum(weight.size_bytes for weight in weights) + skeleton.ByteSize()):
        if external:
            return _write_beside(skeleton, weights, path, advance, chunk_bytes)
        return _write_inside(skeleton, weights, path, advance)


def _write_beside(
    skeleton: onnx.ModelProto,
    weights: Sequence[Data],
    path: Path,
    advance: Callable[[int], None],
    chunk_bytes: int | None,
) -> list[Path]:
    """Write the graph, and the weights to one or more files of external data. Shapes stay in the graph."""
    chunks: list[list[Data]] = [[]]
    size_bytes = 0
    for weight in weights:
        if _can_be_shape(weight):
            tensor = onnx.TensorProto(name=weight.name, data_type=weight.data_type, dims=weight.shape)
            tensor.raw_data = bytes(weight.data())
            skeleton.graph.initializer.append(tensor)
            advance(weight.size_bytes)
            continue
        needed = weight.size_bytes + ALIGNMENT_BYTES
        if chunks[-1] and chunk_bytes is not None and size_bytes + needed > chunk_bytes:
            chunks.append([])
            size_bytes = 0
        chunks[-1].append(weight)
        size_bytes += needed
    paths = [path]
    for number, chunk in enumerate(chunks):
        data_path = path.with_name(path.name + DATA_SUFFIX + (f"_{number}" if number else ""))
        with data_path.open("wb") as file:
            for weight in chunk:
                skeleton.graph.initializer.append(_write_external(weight, file, data_path.name))
                advance(weight.size_bytes)
        paths.append(data_path)
    path.write_bytes(skeleton.SerializeToString(deterministic=True))
    return paths


def _can_be_shape(weight: Data) -> bool:
    """Return whether a weight may be the shape of a `Reshape`, which ONNX Runtime does not read from external data."""
    return weight.data_type == onnx.TensorProto.INT64 and weight.size_bytes <= SHAPE_LIMIT_BYTES


def _write_inside(
    skeleton: onnx.ModelProto, weights: Sequence[Data], path: Path, advance: Callable[[int], None]
) -> list[Path]:
    """Write the graph with its weights in one file."""
    graph = skeleton.graph.SerializeToString(deterministic=True)
    skeleton.ClearField("graph")
    headers = [_header(weight) for weight in weights]
    fields = [
        (varint(_GRAPH_INITIALIZER), header + varint(_TENSOR_RAW_DATA) + varint(weight.size_bytes), weight)
        for header, weight in zip(headers, weights, strict=True)
    ]
    lengths = [len(header) + weight.size_bytes for _, header, weight in fields]
    total = len(graph) + sum(
        len(tag) + len(varint(length)) + length for (tag, _, _), length in zip(fields, lengths, strict=True)
    )
    with path.open("wb") as file:
        file.write(skeleton.SerializeToString(deterministic=True))
        file.write(varint(_MODEL_GRAPH) + varint(total))
        file.write(graph)
        for (tag, header, weight), length in zip(fields, lengths, strict=True):
            file.write(tag + varint(length) + header)
            file.write(weight.data())
            advance(weight.size_bytes)
    return [path]


def set_metadata(model: onnx.ModelProto, metadata: Mapping[str, str]) -> None:
    """Store the producer, its version and the source in the file."""
    model.producer_name = metadata["producer"]
    model.producer_version = metadata["version"]
    del model.metadata_props[:]
    onnx.helper.set_model_props(
        model, {key: value for key, value in metadata.items() if key not in ("producer", "version")}
    )


def move_model(path: Path, target: Path) -> Path:
    """Move an ONNX file and its external data to `target`; the data's file is renamed accordingly.

    Args:
        path: path of the graph; external weights are in a file with its name and `_data`.
        target: new path of the graph; an existing file is replaced.

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
    """Yield the initializers of a graph and of its branches."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                yield from _initializers(inner)


def _header(weight: Data) -> bytes:
    tensor = onnx.TensorProto(name=weight.name, data_type=weight.data_type, dims=weight.shape)
    return bytes(tensor.SerializeToString(deterministic=True))


def _write_external(weight: Data, file: BinaryIO, file_name: str) -> onnx.TensorProto:
    offset = -(-file.tell() // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    file.seek(offset)
    file.write(weight.data())
    tensor = onnx.TensorProto(name=weight.name, data_type=weight.data_type, dims=weight.shape)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    location: Mapping[str, object] = {"location": file_name, "offset": offset, "length": weight.size_bytes}
    for key, value in location.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor
