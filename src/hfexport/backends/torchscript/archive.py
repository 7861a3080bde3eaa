"""Make TorchScript archives reproducible: the same model gives the same bytes, without paths of the machine.

`torch.jit.save` writes a zip archive, tensors first, code after. Only the code varies: class numbers
(`___torch_mangle_7`) come from a counter of the process, and `*.debug_pkl` files hold paths of source files. The
tensors stay in place; only the records after them are rewritten. A frozen module has its tensors among the constants of
the code, which come last; they are copied.
"""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

__all__ = ["ALIGNMENT", "HEADER_BYTES", "entry", "make_reproducible"]

_STAYS = re.compile(r"[^/]+/(?:extra/.+|data/\d+)")
"""Leading records with most of the bytes: extra files and the model's tensors."""

_DROPPED = re.compile(r"[^/]+/(?:.+\.debug_pkl|traced_inputs(?:\.pkl|/\d+)|\.data/serialization_id)")
"""Records that are dropped: source positions, the (empty) shapes of the example, and a hash of all names."""

_CONSTANT = re.compile(r"[^/]+/constants/\d+")
"""Records of tensors that the code contains."""

HEADER_BYTES = 30
"""Size of a local file header of a zip archive without the name and the extra field."""

_SMALL_BYTES = 2**20
"""Size of all constants up to which they are rewritten with the code."""

ALIGNMENT = 64
"""Alignment in bytes of tensors in archives of `torch.jit.save`, so that they can be mapped."""

_CODE = re.compile(r"[^/]+/code/(__torch__/.+)\.py")
_MANGLE = re.compile(r"\.___torch_mangle_\d+")
_QUALIFIED = re.compile(r"__torch__(?:\.\w+)+")
_DEFINITION = re.compile(r"(?:class|def) (\w+)")

_PICKLED_CLASS = re.compile(rb"c(__torch__[\w.]*)\n(\w+)\n")
"""Pattern of pickle's GLOBAL opcode, the only one that names classes here: text up to a newline, without a length."""

_EPOCH = (1980, 1, 1, 0, 0, 0)


def make_reproducible(path: Path) -> None:
    """Number the classes of an archive by order of appearance, and drop records that depend on the process.

    Raises:
        ValueError: the archive does not have the layout of `torch.jit.save`.
    """
    with zipfile.ZipFile(path, "a") as archive:
        records = archive.infolist()
        first = next((n for n, record in enumerate(records) if not _STAYS.fullmatch(record.filename)), len(records))
        constants = [record for record in records[first:] if _CONSTANT.fullmatch(record.filename)]
        if sum(record.file_size for record in constants) <= _SMALL_BYTES:
            constants = []
        copied = {record.filename for record in constants}
        others = [record for record in records[first:] if record.filename not in copied]
        tail = {record.filename: archive.read(record) for record in others}
        if not tail or any(_STAYS.fullmatch(name) for name in tail):
            raise ValueError(f"{path.name}: tensors do not come before code in this archive")
        rewritten = _renamed({name: data for name, data in tail.items() if not _DROPPED.fullmatch(name)})
        if constants:
            _write_beside(path, archive, records[:first], rewritten, constants)
            return
        # zipfile cannot remove records, but it writes new ones at `start_dir` and lists those in `filelist`.
        archive.start_dir = records[first].header_offset
        del archive.filelist[first:]
        for name in tail:
            del archive.NameToInfo[name]
        for name, data in rewritten.items():
            archive.writestr(entry(name), data)


def _write_beside(
    path: Path,
    archive: zipfile.ZipFile,
    leading: Sequence[zipfile.ZipInfo],
    rewritten: Mapping[str, bytes],
    constants: Sequence[zipfile.ZipInfo],
) -> None:
    """Replace an archive by one with leading records, rewritten ones and constants."""
    made = path.with_name(f"{path.name}.part")
    with zipfile.ZipFile(made, "w") as target:
        for record in leading:
            _copy(archive, record, target)
        for name, data in rewritten.items():
            target.writestr(entry(name), data)
        for record in constants:
            _copy(archive, record, target)
    os.replace(made, path)


def _copy(archive: zipfile.ZipFile, record: zipfile.ZipInfo, target: zipfile.ZipFile) -> None:
    """Copy a record; its data is aligned by an extra field."""
    described = entry(record.filename)
    described.file_size = record.file_size
    start = target.start_dir + HEADER_BYTES + len(described.filename.encode())
    padding = -(start + 4) % ALIGNMENT
    described.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
    with archive.open(record) as source, target.open(described, "w") as copied:
        shutil.copyfileobj(source, copied, 2**20)


def entry(name: str) -> zipfile.ZipInfo:
    """Return the description of a record without the time and the system."""
    described = zipfile.ZipInfo(name, _EPOCH)
    described.create_system = 3
    return described


def _renamed(records: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return `records` with one file per class, numbered in the order in which the pickled model names them."""
    definitions: dict[str, tuple[str, str]] = {}
    for name, data in records.items():
        if found := _CODE.fullmatch(name):
            qualifier = found[1].replace("/", ".")
            root = name.partition("/")[0]
            definitions |= {f"{qualifier}.{symbol}": (root, text) for symbol, text in _definitions(data.decode())}
    new_names = {}
    for number, old in enumerate(_in_order(definitions, records)):
        qualifier, _, symbol = old.rpartition(".")
        new_names[old] = f"{_MANGLE.sub('', qualifier)}.___torch_mangle_{number}.{symbol}"
    result = {
        name: _rename_pickled(data, new_names) if name.endswith(".pkl") else data
        for name, data in records.items()
        if not _CODE.fullmatch(name)
    }
    for old, new in new_names.items():
        root, text = definitions[old]
        code = _QUALIFIED.sub(lambda found: new_names.get(found[0], found[0]), text)
        result[f"{root}/code/{new.rpartition('.')[0].replace('.', '/')}.py"] = code.encode()
    return result


def _in_order(definitions: Iterable[str], records: Mapping[str, bytes]) -> list[str]:
    """Return `definitions` in the order in which the pickled model names them, then all others."""
    pickled = [data for name, data in records.items() if name.endswith("/data.pkl")]
    named = [
        f"{module.decode()}.{symbol.decode()}" for data in pickled for module, symbol in _PICKLED_CLASS.findall(data)
    ]
    known = list(definitions)
    return list(dict.fromkeys([name for name in named if name in known] + known))


def _definitions(code: str) -> list[tuple[str, str]]:
    """Split a file of TorchScript code into (name, text) of each class or function."""
    parts = re.split(r"^(?=class |def )", code, flags=re.MULTILINE)
    if parts[0].strip():
        raise ValueError(f"code before the first definition: {parts[0][:80]!r}")
    found = []
    for text in parts[1:]:
        symbol = _DEFINITION.match(text)
        assert symbol is not None  # the text was split where the pattern matches
        found.append((symbol[1], text))
    return found


def _rename_pickled(data: bytes, new_names: Mapping[str, str]) -> bytes:
    def rename(found: re.Match[bytes]) -> bytes:
        old = f"{found[1].decode()}.{found[2].decode()}"
        module, _, symbol = new_names.get(old, old).rpartition(".")
        return f"c{module}\n{symbol}\n".encode()

    return _PICKLED_CLASS.sub(rename, data)
