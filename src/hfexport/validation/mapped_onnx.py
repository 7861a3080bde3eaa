"""Read ONNX files whose weights are in the graph's file without reading the weights into memory.

A protobuf message is a sequence of fields, each a tag, a length and bytes
(https://protobuf.dev/programming-guides/encoding/). The file is walked field by field, and each large `raw_data` of an
initializer becomes a reference to external data: to its place in the same file, which ONNX Runtime maps.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from hfexport._internal.varint import varint
from hfexport.errors import ValidationError

if TYPE_CHECKING:
    import onnx

__all__ = ["read_mapped"]

LEAST_BYTES: Final = 2**12
"""Size below which a tensor stays in the graph: shapes and other constants that runtimes read when they load it."""

_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
_MODEL_GRAPH: Final = (7 << 3) | _BYTES
_GRAPH_INITIALIZER: Final = (5 << 3) | _BYTES
_TENSOR_RAW_DATA: Final = (9 << 3) | _BYTES


class _Broken(ValueError):
    """A file is not a protobuf message, or ends early."""


@dataclass(frozen=True)
class _Field:
    """A field of a message in a file: its tag, and where it, its content and the next field begin."""

    tag: int
    start: int
    content: int
    end: int


def read_mapped(path: Path) -> onnx.ModelProto:
    """Read a model without its large weights, which become external data in the same file.

    Weights that are external already stay so.

    Args:
        path: path of the graph. References to external data are relative to its folder.

    Raises:
        ValidationError: the file is not an ONNX model.
    """
    import onnx
    from google.protobuf.message import DecodeError

    content = bytearray()
    try:
        with path.open("rb") as file:
            for field in _fields(file, 0, os.fstat(file.fileno()).st_size):
                content += _graph(file, field, path.name) if field.tag == _MODEL_GRAPH else _bytes(file, field)
        return onnx.load_model_from_string(bytes(content))
    except (_Broken, DecodeError) as error:
        raise ValidationError(f"{path.name} is not an ONNX model: {error}") from error


def _graph(file: BinaryIO, graph: _Field, location: str) -> bytes:
    """Return the graph's field with its large weights as external data."""
    content = bytearray()
    for field in _fields(file, graph.content, graph.end):
        large = field.tag == _GRAPH_INITIALIZER and field.end - field.content > LEAST_BYTES
        content += _initializer(file, field, location) if large else _bytes(file, field)
    return _field(_MODEL_GRAPH, bytes(content))


def _initializer(file: BinaryIO, tensor: _Field, location: str) -> bytes:
    """Return the initializer's field; a `raw_data` of some size becomes a reference to its place."""
    import onnx

    fields = list(_fields(file, tensor.content, tensor.end))
    raw = [field for field in fields if field.tag == _TENSOR_RAW_DATA]
    if len(raw) != 1 or raw[0].end - raw[0].content < LEAST_BYTES:
        return _bytes(file, tensor)
    found = onnx.TensorProto.FromString(b"".join(_bytes(file, field) for field in fields if field not in raw))
    found.data_location = onnx.TensorProto.EXTERNAL
    place = {"location": location, "offset": raw[0].content, "length": raw[0].end - raw[0].content}
    for key, value in place.items():
        found.external_data.add(key=key, value=str(value))
    return _field(_GRAPH_INITIALIZER, found.SerializeToString(deterministic=True))


def _fields(file: BinaryIO, start: int, end: int) -> Iterator[_Field]:
    """Yield the fields of the message between two positions of a file."""
    while start < end:
        file.seek(start)
        tag = _read_varint(file)
        kind = tag & 7
        if kind == _BYTES:
            length = _read_varint(file)
        elif kind in (_FIXED_64, _FIXED_32):
            length = 8 if kind == _FIXED_64 else 4
        elif kind == _VARINT:
            _read_varint(file)
            length = 0
        else:
            raise _Broken(f"a field of unknown kind {kind} at byte {start}")
        content = file.tell()
        if content + length > end:
            raise _Broken(f"the field at byte {start} ends after its message")
        yield _Field(tag, start, content, content + length)
        start = content + length


def _bytes(file: BinaryIO, field: _Field) -> bytes:
    """Return a whole field."""
    file.seek(field.start)
    return file.read(field.end - field.start)


def _field(tag: int, content: bytes) -> bytes:
    return varint(tag) + varint(len(content)) + content


def _read_varint(file: BinaryIO) -> int:
    """Read an integer in base 128, least significant group first, of at most ten bytes."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise _Broken("a number does not end")
