"""Pickles that torch could have written but did not: each part of a tensor that does not fit is named."""

from __future__ import annotations

import collections
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hfexport.checkpoint.torch_file import LEGACY_MAGIC, LEGACY_PROTOCOL, stored_tensors
from hfexport.errors import CheckpointError


class _Storage:
    """What `torch.save` writes in place of a storage."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts


class _Tensor:
    """A call of the function that rebuilds a tensor."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, self.arguments


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        return value.parts if isinstance(value, _Storage) else None


def pickled(value: Any) -> bytes:
    file = io.BytesIO()
    _Pickler(file, protocol=2).dump(value)
    return file.getvalue()


FOUR = _Storage("storage", torch.FloatStorage, "0", "cpu", 4)
HOOKS: dict[str, Any] = collections.OrderedDict()


def write_zip(path: Path, table: Any) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(table))
        archive.writestr("archive/data/0", np.arange(4, dtype=np.float32).tobytes())


def write_legacy(path: Path, *, protocol: int = LEGACY_PROTOCOL, little: bool = True, keys: Any = ("0",)) -> None:
    system = {"protocol_version": protocol, "little_endian": little, "type_sizes": {}}
    table = {"w": _Tensor(FOUR, 0, (4,), (1,), False, HOOKS)}
    parts = (LEGACY_MAGIC, protocol, system, table, list(keys) if isinstance(keys, tuple) else keys)
    data = (4).to_bytes(8, "little") + np.arange(4, dtype=np.float32).tobytes()
    path.write_bytes(b"".join(pickled(part) for part in parts) + data)


def test_what_torch_writes_is_read(tmp_path: Path) -> None:
    write_zip(tmp_path / "a.bin", {"w": _Tensor(FOUR, 1, torch.Size((3,)), (1,), False, HOOKS)})
    write_legacy(tmp_path / "b.bin")
    assert [tensor.read().tolist() for tensor in stored_tensors(tmp_path / "a.bin")] == [[1.0, 2.0, 3.0]]
    assert [tensor.read().tolist() for tensor in stored_tensors(tmp_path / "b.bin")] == [[0.0, 1.0, 2.0, 3.0]]


REFUSED: dict[str, tuple[Any, str]] = {
    "a list": ([_Tensor(FOUR, 0, (4,), (1,))], "not a table of tensors"),
    "a number for a name": ({1: _Tensor(FOUR, 0, (4,), (1,))}, "its table has the name 1, which is no text"),
    "no strides": ({"w": _Tensor(FOUR, 0, (4,))}, "with too few arguments"),
    "something else along": ({"w": _Tensor(FOUR, 0, (4,), (1,), False, {"a": 1})}, "along with a tensor"),
    "before its storage": ({"w": _Tensor(FOUR, -1, (4,), (1,))}, "do not fit together"),
    "two strides": ({"w": _Tensor(FOUR, 0, (4,), (1, 1))}, "do not fit together"),
    "many axes": ({"w": _Tensor(FOUR, 0, (1,) * 99, (1,) * 99)}, "do not fit together"),
    "text for a shape": ({"w": _Tensor(FOUR, 0, "four", (1,))}, "are not lists of numbers"),
    "a negative size": ({"w": _Tensor(FOUR, 0, (-4,), (1,))}, "are not lists of numbers"),
    "no storage": ({"w": _Tensor("data", 0, (4,), (1,))}, "it takes a tensor's data from"),
    "another reference": ({"w": _Tensor(_Storage("module", 1), 0, (4,), (1,))}, "it takes a tensor's data from"),
    "a view": (
        {"w": _Tensor(_Storage("storage", torch.FloatStorage, "0", "cpu", 4, ("1", 0, 4)), 0, (4,), (1,))},
        "views of storages",
    ),
    "a storage of dictionaries": (
        {"w": _Tensor(_Storage("storage", collections.OrderedDict, "0", "cpu", 4), 0, (4,), (1,))},
        "it asks for storages of",
    ),
    "a number for a key": (
        {"w": _Tensor(_Storage("storage", torch.FloatStorage, 0, "cpu", 4), 0, (4,), (1,))},
        "a storage without key or size",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_tensor_that_does_not_fit_is_refused(case: str, tmp_path: Path) -> None:
    table, said = REFUSED[case]
    write_zip(tmp_path / "pytorch_model.bin", table)
    with pytest.raises(CheckpointError) as refused:
        stored_tensors(tmp_path / "pytorch_model.bin")
    assert "its pickle is refused, and nothing of it ran" in refused.value.message
    assert said in refused.value.message
    assert refused.value.exit_code == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"protocol": 7}, "is a pickle, but not one that torch.save wrote"),
        ({"little": False}, "is written in big-endian order"),
        ({"keys": "0"}, "its list of storages is not a list"),
        ({"keys": ("1",)}, "ends before storage '1'"),
        ({"keys": ("0", "0")}, "ends before storage '0'"),
    ],
)
def test_a_legacy_file_that_does_not_fit_is_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    write_legacy(tmp_path / "pytorch_model.bin", **changes)
    with pytest.raises(CheckpointError) as refused:
        stored_tensors(tmp_path / "pytorch_model.bin")
    assert said in refused.value.message


def test_an_entry_without_its_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    write_zip(path, {"w": _Tensor(FOUR, 0, (4,), (1,))})
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo("archive/data/0").header_offset
    content = bytearray(path.read_bytes())
    content[place : place + 4] = b"none"
    path.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match="damaged zip archive: entry archive/data/0 has no header"):
        stored_tensors(path)
