"""Read files written by `torch.save` that hold a table of tensors. Torch-free.

There are two layouts: since torch 1.6 a zip archive with `data.pkl` and one uncompressed entry per storage; before
    that, five pickles followed by the storages. In both, the pickle is interpreted without running it (`torch_pickle`),
    every tensor is checked against the file, and its data is mapped. Results and refusals match those of
    `torch.load(weights_only=True)`.

Formats: https://github.com/pytorch/pytorch/blob/v2.13.0/torch/serialization.py (`_save`, `_legacy_save`)
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Final

from hfexport.checkpoint.lfs import refuse_pointer
from hfexport.checkpoint.stored import ITEM_BYTES, MAX_RANK, StoredTensor, map_array
from hfexport.checkpoint.torch_pickle import Call, Name, PersistentId, PickleRefusedError, described, follow
from hfexport.errors import CheckpointError

__all__ = ["stored_tensors"]

LEGACY_MAGIC: Final = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL: Final = 1001
MAX_PICKLE_BYTES: Final = 2**26

_STORAGES: Final[Mapping[Name, str]] = MappingProxyType(
    {
        Name("torch", f"{kind}Storage"): dtype
        for kind, dtype in {
            **{"Double": "F64", "Float": "F32", "Half": "F16", "BFloat16": "BF16", "Bool": "BOOL"},
            **{"Long": "I64", "Int": "I32", "Short": "I16", "Char": "I8", "Byte": "U8"},
        }.items()
    }
)
_REBUILD_TENSOR: Final = (Name("torch._utils", "_rebuild_tensor_v2"), Name("torch._utils", "_rebuild_tensor"))
_REBUILD_PARAMETER: Final = Name("torch._utils", "_rebuild_parameter")
_SIZE: Final = Name("torch", "Size")
_STATE_DICT_KEYS: Final = ("state_dict", "model_state_dict")
"""Keys under which training loops save the weights beside other state."""

_RESAVE: Final = "Load it where you trust it, and save the model with `save_pretrained`, which writes safetensors."
_AGAIN: Final = "Copy or download the file again."


@dataclass(frozen=True)
class _Storage:
    """Location of a storage in the file; `size` is in elements."""

    dtype: str
    size: int
    offset_bytes: int


@dataclass(frozen=True)
class _Layout:
    """The pickle's table, and the location of each storage by key: offset and size, in bytes."""

    table: Any
    places: Mapping[str, tuple[int, int]]


def stored_tensors(path: Path) -> list[StoredTensor]:
    """Return the mapped tensors of a `pytorch_model.bin` without running its pickle.

    Raises:
        CheckpointError: the file is damaged, or contains objects other than tensors; the message names them.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
            file.seek(0)
            refuse_pointer(path, start)
            layout = _zip_layout(path, file) if start[:4] == b"PK\x03\x04" else _legacy_layout(path, file)
        return _tensors(path, layout)
    except PickleRefusedError as error:
        raise CheckpointError(
            f"{path}: its pickle is refused, and nothing of it ran: {error}", remedy=_RESAVE
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}", remedy=_AGAIN) from error


def _zip_layout(path: Path, file: BinaryIO) -> _Layout:
    try:
        archive = zipfile.ZipFile(file)
        entries = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1 or len(entries) != len(archive.infolist()):
            raise CheckpointError(f"{path}: is a zip archive, but not one that torch.save wrote", remedy=_AGAIN)
        root = pickles[0].removesuffix("data.pkl")
        for info in entries.values():
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise CheckpointError(f"{path}: entry {info.filename} is compressed, which torch.save never does")
        if entries[pickles[0]].file_size > MAX_PICKLE_BYTES:
            raise CheckpointError(f"{path}: its pickle has more than {MAX_PICKLE_BYTES} bytes")
        if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
            raise CheckpointError(f"{path}: is written in big-endian order", remedy=_RESAVE)
        table = follow(BytesIO(archive.read(pickles[0])))
        prefix = f"{root}data/"
        places = {
            name.removeprefix(prefix): (_data_offset(file, info), info.file_size)
            for name, info in entries.items()
            if name.startswith(prefix)
        }
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, struct.error, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: is a damaged zip archive: {error}", remedy=_AGAIN) from error
    return _Layout(table, places)


def _data_offset(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Return the offset of an entry's data, after its local header, whose length the directory does not tell."""
    file.seek(info.header_offset)
    header = file.read(30)
    if header[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile(f"entry {info.filename} has no header")
    name_bytes, extra_bytes = struct.unpack("<HH", header[26:30])
    return info.header_offset + 30 + int(name_bytes) + int(extra_bytes)


def _legacy_layout(path: Path, file: BinaryIO) -> _Layout:
    if file.read(1) != b"\x80":
        raise CheckpointError(f"{path}: is no file that torch.save wrote", remedy=_AGAIN)
    file.seek(0)
    if follow(file) != LEGACY_MAGIC or follow(file) != LEGACY_PROTOCOL:
        raise CheckpointError(f"{path}: is a pickle, but not one that torch.save wrote", remedy=_RESAVE)
    system = follow(file)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise CheckpointError(f"{path}: is written in big-endian order", remedy=_RESAVE)
    table = follow(file)
    keys = follow(file)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise PickleRefusedError("its list of storages is not a list")
    item_bytes = {key: ITEM_BYTES[dtype] for key, dtype in _storage_dtypes(table).items()}
    places: dict[str, tuple[int, int]] = {}
    for key in keys:
        prefix = file.read(8)
        if len(prefix) < 8 or key not in item_bytes:
            raise CheckpointError(f"{path}: ends before storage {key!r}", remedy=f"It is truncated. {_AGAIN}")
        size_bytes = int.from_bytes(prefix, "little", signed=True) * item_bytes[key]
        places[key] = (file.tell(), size_bytes)
        if size_bytes < 0 or file.tell() + size_bytes > path.stat().st_size:
            raise CheckpointError(
                f"{path}: storage {key!r} declares {size_bytes} bytes, more than the file has",
                remedy=f"It is truncated. {_AGAIN}",
            )
        file.seek(size_bytes, 1)
    return _Layout(table, places)


def _storage_dtypes(table: Any) -> dict[str, str]:
    """Return the dtype of every storage that the table's tensors refer to, by key."""
    found: dict[str, str] = {}
    for value in _table(table).values():
        key, dtype, _ = _storage_reference(_rebuild_arguments(value)[0])
        found[key] = dtype
    return found


def _tensors(path: Path, layout: _Layout) -> list[StoredTensor]:
    size_bytes = path.stat().st_size
    tensors = []
    for name, value in _table(layout.table).items():
        reference, offset, shape, strides = _rebuild_arguments(value)
        key, dtype, size = _storage_reference(reference)
        if key not in layout.places:
            raise CheckpointError(f"{path}: lacks the storage {key!r} of tensor {name!r}", remedy=_AGAIN)
        begin, length = layout.places[key]
        item = ITEM_BYTES[dtype]
        last = offset + sum((extent - 1) * stride for extent, stride in zip(shape, strides, strict=True))
        reaches_past = 0 not in shape and (last >= size or math.prod(shape) > size)
        if size * item > length or begin + length > size_bytes or reaches_past:
            raise CheckpointError(
                f"{path}: tensor {name!r} of shape {list(shape)} and dtype {dtype} reaches past its storage of {length} bytes",
                remedy=_AGAIN,
            )
        place = begin + offset * item
        tensors.append(StoredTensor(name, dtype, shape, partial(map_array, path, dtype, shape, place, strides)))
    return tensors


def _table(table: Any) -> dict[str, Any]:
    """Return the pickle's value as a table, with wrappers of parameters removed.

    Raises:
        PickleRefusedError: the value contains other objects; the message names them.
    """
    if not isinstance(table, dict):
        raise PickleRefusedError(f"it holds {described(table)}, not a table of tensors")
    wrapped = next((table[key] for key in _STATE_DICT_KEYS if isinstance(table.get(key), dict)), None)
    if wrapped is not None:
        table = wrapped
    found: dict[str, Any] = {}
    for name, value in table.items():
        if not isinstance(name, str):
            raise PickleRefusedError(f"its table has the name {name}, which is no text")
        is_parameter = isinstance(value, Call) and value.target == _REBUILD_PARAMETER and value.arguments
        tensor = value.arguments[0] if is_parameter else value
        if not isinstance(tensor, Call) or tensor.target not in _REBUILD_TENSOR:
            raise PickleRefusedError(f"under {name!r} it holds {described(tensor)}, not a tensor")
        found[name] = tensor
    return found


def _rebuild_arguments(call: Call) -> tuple[Any, int, tuple[int, ...], tuple[int, ...]]:
    """Return a tensor's storage reference, offset in elements, shape, and strides in elements."""
    if len(call.arguments) < 4:
        raise PickleRefusedError(f"it calls {call.target} with too few arguments")
    reference, offset, shape, strides = call.arguments[:4]
    shape, strides = _numbers(shape), _numbers(strides)
    for extra in call.arguments[4:]:
        # `requires_grad`, hooks (always an empty dictionary) and metadata do not change the data.
        if not (extra is None or type(extra) is bool or (type(extra) is dict and not extra)):
            raise PickleRefusedError(f"it gives {described(extra)} along with a tensor")
    if type(offset) is not int or offset < 0 or len(shape) != len(strides) or len(shape) > MAX_RANK:
        raise PickleRefusedError("it has a tensor whose offset, shape and strides do not fit together")
    return reference, offset, shape, strides


def _numbers(value: Any) -> tuple[int, ...]:
    if isinstance(value, Call) and value.target == _SIZE and len(value.arguments) == 1:
        value = value.arguments[0]
    if not isinstance(value, tuple | list) or not all(type(number) is int and number >= 0 for number in value):
        raise PickleRefusedError("it has a tensor whose shape or strides are not lists of numbers")
    return tuple(value)


def _storage_reference(reference: Any) -> tuple[str, str, int]:
    """Return key, dtype and size in elements of the storage that a tensor refers to."""
    value = reference.value if isinstance(reference, PersistentId) else None
    if not isinstance(value, tuple) or len(value) not in (5, 6) or value[0] not in ("storage", b"storage"):
        raise PickleRefusedError(f"it takes a tensor's data from {described(reference)}")
    kind, key, size = value[1], value[2], value[4]
    if len(value) == 6 and value[5] is not None:
        raise PickleRefusedError("it has views of storages, as torch 0.3 wrote them")
    if not isinstance(kind, Name) or kind not in _STORAGES:
        raise PickleRefusedError(f"it asks for storages of {described(kind)}")
    if not isinstance(key, str) or type(size) is not int or size < 0:
        raise PickleRefusedError("it refers to a storage without key or size")
    return key, _STORAGES[kind], size
