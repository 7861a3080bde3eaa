"""Template of a TorchScript archive: its code, and for each tensor the name of the model's tensor that fills it. Torch-free.

The archive of `torch.jit.save`, after `hfexport.backends.torchscript.archive`, is a zip file of uncompressed records: the
description, the model's tensors, then the pickled modules, the code and the constants of the code.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import onnx

from hfexport._internal.room import writing
from hfexport.backends.base import Data
from hfexport.backends.origins import StoredWeight
from hfexport.backends.torchscript.archive import ALIGNMENT, HEADER_BYTES, entry
from hfexport.runtime import DESCRIPTION_FILE
from hfexport.runtime.artifacts import DescriptionValues

if TYPE_CHECKING:
    from hfexport.export_config import ExportConfig

__all__ = ["Record", "Script", "decode", "encode", "held_sizes", "take_apart", "write_archive"]

MODEL_ATTRIBUTE: Final = "model"
"""Attribute of the traced module that holds the model, see `hfexport.modeling.load.FlatModel`."""

ARCHIVE_LIMIT_BYTES: Final = 2**32 - 2**24
"""Largest archive that can be written from a template: its records need no fields of zip64."""

_STORAGES: Final = {
    "FloatStorage": onnx.TensorProto.FLOAT,
    "HalfStorage": onnx.TensorProto.FLOAT16,
    "DoubleStorage": onnx.TensorProto.DOUBLE,
    "LongStorage": onnx.TensorProto.INT64,
    "IntStorage": onnx.TensorProto.INT32,
    "BoolStorage": onnx.TensorProto.BOOL,
}

_FLAGS: Final = 0x808
"""Flags of torch's records: the checksum follows the data, and names are UTF-8."""

_LOCAL_HEADER: Final = struct.Struct("<4s5H3I2H")
_DESCRIPTOR: Final = struct.Struct("<4s3I")
_EPOCH: Final = (1980, 0, 0, 0, 0, 0)
_BLOCK_BYTES: Final = 2**24
_ROOT: Final = re.compile(r"\w+")
_RECORD: Final = re.compile(
    r"data\.pkl|constants\.pkl|constants/\d+|code/__torch__(/\w+)+\.py|\.data/version|version|byteorder|\.format_version"
)
"""Names of records after the tensors."""

_OUTSIDE: Final = re.compile(rb"\b(?:torch|ops\.aten)\.(?:save|load|from_file)\b|\bops\.(?!prim\.|aten\.)")
"""Calls of operators that read or write files, or that torch alone does not have."""


class Record(msgspec.Struct, frozen=True):
    """A record of an archive: its name in the root folder, and its content."""

    name: str
    content: bytes


class Script(msgspec.Struct, frozen=True):
    """A TorchScript archive without its tensors.

    Attributes:
        root: root folder of the archive, which is the stem of the file's name.
        description: description of inputs and outputs, see `hfexport.runtime.Description`, without metadata.
        weights: tensors of the model, in the order of the archive.
        records: all further records, in order.
        nodes: number of nodes of its graphs.
        operators: number of nodes by operator.
        untied: number of tensors that were given storage of their own.
        fixed_sizes: sizes of all free axes of a trace with fixed sizes; empty for a shape-free one.
    """

    root: str
    description: DescriptionValues
    weights: tuple[StoredWeight, ...]
    records: tuple[Record, ...]
    nodes: int
    operators: dict[str, int]
    untied: int
    fixed_sizes: dict[str, int] = {}

    def described(self, metadata: Mapping[str, str]) -> str:
        """Return the content of the archive's description."""
        return json.dumps({**self.description, "metadata": dict(metadata)}, indent=1)


def held_sizes(config: ExportConfig, fixed_sizes: Mapping[str, int]) -> dict[str, int]:
    """Return the sizes of axes that a trace holds only at: those that the model fixes, and requested ones."""
    return {axis: limit.minimum for axis, limit in config.limits.items() if limit.is_fixed} | dict(fixed_sizes)


def encode(script: Script) -> bytes:
    """Serialise a template."""
    return msgspec.msgpack.encode(script)


def decode(content: bytes) -> Script:
    """Read a template.

    Raises:
        ValueError: the content is not a template.
    """
    script = msgspec.msgpack.decode(content, type=Script)  # its errors are ValueErrors
    if not _ROOT.fullmatch(script.root):
        raise ValueError("the name of its root folder is not valid")
    names = [record.name for record in script.records]
    if len(set(names)) != len(names) or not all(_RECORD.fullmatch(name) for name in names):
        raise ValueError("it has records that an archive does not have")
    if any(_OUTSIDE.search(record.content) for record in script.records if record.name.startswith("code/")):
        raise ValueError("its code calls operators that a model does not need")
    pickled = next((record.content for record in script.records if record.name == "data.pkl"), b"")
    found = [(one.tensor, one.data_type, one.shape) for one in _tensors(pickled)]
    if found != [(weight.name, weight.data_type, weight.shape) for weight in script.weights]:
        raise ValueError("its modules have other tensors than it describes")
    return script


class _Tensor:
    """A tensor in the pickled modules: key and type of its storage, and its layout."""

    def __init__(
        self, storage: tuple[str, int, int], offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: object
    ) -> None:
        self.key, self.data_type, self.elements = storage
        self.shape = shape
        self.whole = offset == 0 and stride == _contiguous(shape)


class _Module:
    """A module in the pickled modules; its attributes are those of the module."""


class _Kind:
    """Type of a storage."""

    def __init__(self, data_type: int) -> None:
        self.data_type = data_type


class _Modules(pickle.Unpickler):
    """Reads the pickled modules of an archive without their code: every class becomes one of this file."""

    def find_class(self, module: str, name: str, /) -> Any:
        if module.startswith("__torch__"):
            return _Module
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Tensor
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch" and name in _STORAGES:
            return _Kind(_STORAGES[name])
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a module")

    def persistent_load(self, pid: Any, /) -> tuple[str, int, int]:
        """Return key, data type and number of elements of a storage."""
        _, kind, key, _, elements = pid
        return str(key), int(kind.data_type), int(elements)


def _contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of a row-major tensor."""
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def _tensors(pickled: bytes) -> list[StoredWeight]:
    """Return the tensors of the pickled modules in the order of their storages, by their first name.

    Raises:
        ValueError: a storage does not hold one whole tensor of a known type, or storages are not numbered in order.
    """
    try:
        root = _Modules(io.BytesIO(pickled)).load()
        found: dict[str, tuple[str, _Tensor]] = {}
        for name, tensor in _named(root, ""):
            found.setdefault(tensor.key, (name, tensor))
    except (pickle.UnpicklingError, EOFError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"its modules cannot be read: {error}") from error
    weights = []
    for number in range(len(found)):
        if str(number) not in found:
            raise ValueError("its tensors are not numbered in order")
        name, tensor = found[str(number)]
        elements = 1
        for size in tensor.shape:
            elements *= size
        if not tensor.whole or elements != tensor.elements:
            raise ValueError(f"tensor {name} has no storage of its own")
        weights.append(StoredWeight(name, tensor.data_type, tensor.shape, 0, name))
    return weights


def _named(module: Any, prefix: str) -> Iterator[tuple[str, _Tensor]]:
    """Yield the tensors of a module and of those inside it, by name; names are those in the model."""
    for name, value in vars(module).items():
        full = f"{prefix}{name}"
        if isinstance(value, _Tensor):
            yield full.removeprefix(f"{MODEL_ATTRIBUTE}."), value
        elif isinstance(value, _Module):
            yield from _named(value, f"{full}.")


def take_apart(path: Path) -> tuple[str, tuple[StoredWeight, ...], tuple[Record, ...]]:
    """Return the root folder, the tensors, and the further records of an archive.

    Raises:
        ValueError: `write_archive` would not write this archive again, byte for byte.
    """
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        records = archive.infolist()
        root = records[0].filename.partition("/")[0]
        leading = 0
        while leading < len(records) and records[leading].filename in (
            f"{root}/extra/{DESCRIPTION_FILE}",
            f"{root}/data/{leading - 1}",
        ):
            _refuse_other_header(file, records[leading])
            leading += 1
        tail = tuple(Record(record.filename.partition("/")[2], archive.read(record)) for record in records[leading:])
        weights = tuple(_tensors(next((record.content for record in tail if record.name == "data.pkl"), b"")))
        if len(weights) != leading - 1 or path.stat().st_size > ARCHIVE_LIMIT_BYTES:
            raise ValueError("its records are not those of a template")
    return root, weights, tail


def _refuse_other_header(file: Any, record: zipfile.ZipInfo) -> None:
    file.seek(record.header_offset)
    header = _header(record.header_offset, record.filename)
    if file.read(len(header)) != header:
        raise ValueError(f"{record.filename} has another header than expected")
    file.seek(record.file_size, io.SEEK_CUR)
    if file.read(_DESCRIPTOR.size) != _descriptor(record.CRC, record.file_size):
        raise ValueError(f"{record.filename} has another checksum than expected")


def _header(offset_bytes: int, name: str) -> bytes:
    """Return torch's local header of a record; its last field aligns the data."""
    encoded = name.encode()
    padding = -(offset_bytes + HEADER_BYTES + len(encoded) + 4) % ALIGNMENT
    extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
    return _LOCAL_HEADER.pack(b"PK\3\4", 0, _FLAGS, 0, 0, 0, 0, 0, 0, len(encoded), len(extra)) + encoded + extra


def _descriptor(crc: int, size_bytes: int) -> bytes:
    return _DESCRIPTOR.pack(b"PK\7\10", crc, size_bytes, size_bytes)


def write_archive(
    script: Script, weights: Sequence[Data], path: Path, metadata: Mapping[str, str], advance: Callable[[int], None]
) -> None:
    """Write an archive from a template, with the same bytes as `torch.jit.save` and `make_reproducible`.

    Args:
        script: template.
        weights: its tensors, in its order; each is read when it is written.
        path: new file.
        metadata: values to store in its description.
        advance: called with the size of each written tensor in bytes.

    Raises:
        ExportError: the disk is full.
    """
    needed = sum(weight.size_bytes for weight in weights) + sum(len(record.content) for record in script.records)
    with writing(path.parent, needed), zipfile.ZipFile(path, "w") as archive:
        description = memoryview(script.described(metadata).encode())
        _add(archive, f"{script.root}/extra/{DESCRIPTION_FILE}", description)
        for number, weight in enumerate(weights):
            _add(archive, f"{script.root}/data/{number}", weight.data())
            advance(weight.size_bytes)
        for record in script.records:
            archive.writestr(entry(f"{script.root}/{record.name}"), record.content)


def _add(archive: zipfile.ZipFile, name: str, data: memoryview) -> None:
    """Write a record as torch does. zipfile writes new ones at `start_dir` and lists those in `filelist`."""
    file = archive.fp
    assert file is not None
    record = zipfile.ZipInfo(name, _EPOCH)
    record.header_offset = archive.start_dir
    record.create_system = record.create_version = record.extract_version = 0
    record.flag_bits = _FLAGS
    record.file_size = record.compress_size = len(data)
    file.write(_header(record.header_offset, name))
    for start in range(0, len(data), _BLOCK_BYTES):
        block = data[start : start + _BLOCK_BYTES]
        record.CRC = zlib.crc32(block, record.CRC if start else 0)
        file.write(block)
    if not len(data):
        record.CRC = 0
    file.write(_descriptor(record.CRC, len(data)))
    archive.filelist.append(record)
    archive.NameToInfo[name] = record
    archive.start_dir = file.tell()
