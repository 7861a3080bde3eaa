"""Load a TorchScript archive with its tensors mapped from the file instead of copied to memory.

`torch.jit.load` copies every tensor. torch.package's importer accepts existing storages, so it gets the code and
pickles of the archive in the layout that it expects, and each tensor's bytes as a mapping of the archive.
"""

from __future__ import annotations

import io
import pickletools
import sys
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

import numpy as np

__all__ = ["load_mapped"]

READ_BYTES: Final = 2**24

_PICKLES: Final = ("data.pkl", "constants.pkl")


def load_mapped(path: Path, extra_file: str) -> tuple[Any, bytes]:
    """Load an archive written by `torch.jit.save`; its tensors are pages of the file, copied on write.

    Every record is read once to check its CRC-32.

    Args:
        path: path of the archive.
        extra_file: name of one of its extra files.

    Returns:
        The module and the content of the extra file (empty if there is none).

    Raises:
        ValueError, RuntimeError, OSError: the archive is damaged, or torch cannot import it.
    """
    from hfexport._internal.upstream.torch_archive import import_module, record_offsets

    offsets = record_offsets(path)
    storages: dict[str, Any] = {}
    repacked = io.BytesIO()
    try:
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(repacked, "w", zipfile.ZIP_STORED) as target:
            records = {info.filename.partition("/")[2]: info for info in archive.infolist()}
            for name, info in records.items():
                folder, _, key = name.rpartition("/")
                if folder in ("data", "constants"):
                    _check_crc(archive, info)
                    storages[_key(folder, key)] = _mapped(path, offsets[name], info)
                elif (place := _place(name)) is not None:
                    content = archive.read(info)
                    if name == "constants.pkl":
                        content = _renamed_keys(content, {key for key in offsets if key.startswith("constants/")})
                    target.writestr(f"archive/{place}", content)
            if "byteorder" in records and archive.read(records["byteorder"]) != sys.byteorder.encode():
                raise ValueError("its tensors have another byte order than this machine's")
            extra = archive.read(records[f"extra/{extra_file}"]) if f"extra/{extra_file}" in records else b""
    except (zipfile.BadZipFile, LookupError) as error:
        raise ValueError(f"the archive is damaged: {error}") from error
    repacked.seek(0)
    return import_module(repacked, storages), extra


def _place(name: str) -> str | None:
    """Return the name in torch.package's layout for the record `name`; `None` for records that it does not read."""
    if name in _PICKLES:
        return f".data/ts_code/0/{name}"
    if name.startswith("code/"):
        return f".data/ts_code/{name}"
    return name if name in ("version", ".data/version", "byteorder", ".format_version") else None


def _key(folder: str, key: str) -> str:
    """Return the key of a storage. Tensors of the model and constants of the code are numbered separately, from 0."""
    return key if folder == "data" else f"constant-{key}"


def _renamed_keys(pickled: bytes, records: Collection[str]) -> bytes:
    """Replace the storage keys in the pickle of the code's constants by those of `_key`."""
    result = bytearray()
    operations = list(pickletools.genops(pickled))
    ends = [position for _, _, position in operations[1:]] + [len(pickled)]
    for (operation, argument, position), end in zip(operations, ends, strict=True):
        if operation.name == "BINUNICODE" and f"constants/{argument}" in records:
            text = _key("constants", str(argument)).encode()
            result += b"X" + len(text).to_bytes(4, "little") + text
        else:
            result += pickled[position or 0 : end]
    return bytes(result)


def _check_crc(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    with archive.open(info) as record:
        while record.read(READ_BYTES):
            pass


def _mapped(path: Path, offset_bytes: int, info: zipfile.ZipInfo) -> Any:
    """Return the bytes of a stored record as a tensor; writes do not reach the file."""
    import torch

    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{info.filename} is compressed")
    if info.file_size == 0:
        return torch.empty(0, dtype=torch.uint8)
    return torch.from_numpy(np.memmap(path, np.uint8, "c", offset_bytes, (info.file_size,)))
