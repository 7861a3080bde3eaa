"""Files of `torch.save` are read without unpickling: what torch reads, and nothing that asks for more than tensors."""

from __future__ import annotations

import collections
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hfexport.checkpoint.stored import NUMPY_DTYPES
from hfexport.checkpoint.torch_file import stored_tensors
from hfexport.errors import CheckpointError

TORCH = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "BOOL": torch.bool},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8},
}


def _state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    base = torch.randn(6, 5, generator=generator)
    state = {f"as.{dtype}": (base * 9).to(torch_dtype) for dtype, torch_dtype in TORCH.items()}
    return collections.OrderedDict(
        **state,
        whole=base,
        turned=base.t(),
        part=base[1:4, ::2],
        shared=base,
        scalar=torch.tensor(3.5),
        empty=torch.empty(0, 4),
        parameter=torch.nn.Parameter(base + 1),
        frozen=torch.nn.Parameter(base + 2, requires_grad=False),
    )


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_every_tensor_is_what_torch_reads(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save(_state(), path, _use_new_zipfile_serialization=zipped)
    wanted = torch.load(path, weights_only=True)
    given = {tensor.name: tensor for tensor in stored_tensors(path)}
    assert list(given) == list(wanted)
    for name, tensor in given.items():
        array = np.array(tensor.read())
        assert array.dtype.str == np.dtype(NUMPY_DTYPES[tensor.dtype]).str
        assert torch.equal(torch.from_numpy(array).view(TORCH[tensor.dtype]), wanted[name].detach()), name


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_the_state_of_a_module_is_read_with_its_metadata(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=zipped)
    assert {tensor.name: tensor.shape for tensor in stored_tensors(path)} == {
        name: tuple(tensor.shape) for name, tensor in model.state_dict().items()
    }


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_the_weights_of_a_training_checkpoint(zipped: bool, key: str, tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save({"epoch": 3, key: {"w": torch.arange(3.0)}}, path, _use_new_zipfile_serialization=zipped)
    assert [(tensor.name, tensor.read().tolist()) for tensor in stored_tensors(path)] == [("w", [0.0, 1.0, 2.0])]


class _Runs:
    """Unpickling this runs a command."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


def _malicious(canary: Path) -> dict[str, Any]:
    good = {"w": torch.ones(2)}
    return {
        "in place of a tensor": {**good, "evil": _Runs(canary)},
        "in place of the table": _Runs(canary),
        "along with a tensor": {**good, "evil": torch.nn.Parameter(torch.ones(2))} | {"deep": [_Runs(canary)]},
        "a whole module": torch.nn.Linear(2, 2),
        "a nested table": {"model": good},
        "a number": {**good, "step": 3},
        "an array": {**good, "array": np.ones(3)},
        "a sparse tensor": {**good, "sparse": torch.eye(3).to_sparse()},
        "a complex tensor": {**good, "complex": torch.ones(2, dtype=torch.complex64)},
        "a name that is no text": {**good, 3: torch.ones(2)},
    }


NAMED = {
    "in place of a tensor": "posix.system",
    "in place of the table": "posix.system",
    "along with a tensor": "list",
    "a whole module": "torch.nn.modules.linear.Linear",
    "a nested table": "dict",
    "a number": "int",
    "an array": "numpy",
    "a sparse tensor": "torch._utils._rebuild_sparse_tensor",
    "a complex tensor": "torch.ComplexFloatStorage",
    "a name that is no text": "no text",
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("case", NAMED)
def test_what_asks_for_more_is_named_and_does_not_run(case: str, zipped: bool, tmp_path: Path) -> None:
    path, canary = tmp_path / "pytorch_model.bin", tmp_path / "canary"
    torch.save(_malicious(canary)[case], path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError) as caught:
        stored_tensors(path)
    assert not canary.exists()
    assert "nothing of it ran" in caught.value.message
    assert NAMED[case] in caught.value.message
    assert str(path) in caught.value.message


def test_the_canary_would_sing(tmp_path: Path) -> None:
    """The pickle above is what it claims to be: unpickling it does run the command."""
    pickle.loads(pickle.dumps(_Runs(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


def _rewritten(path: Path, change: Callable[[str, bytes], bytes | None]) -> None:
    """Write the archive at `path` again, each entry as `change(name, data)` gives it; `None` leaves it out."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            if (new := change(name, data)) is not None:
                archive.writestr(name, new)


def _compressed(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data + b"\0" * 999)


def _entry(end: str, change: Callable[[bytes], bytes | None]) -> Callable[[Path], None]:
    return lambda path: _rewritten(path, lambda name, data: change(data) if name.endswith(end) else data)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-200]), "damaged zip archive"),
    "storage missing": (_entry("data/0", lambda _: None), "lacks the storage '0'"),
    "storage short": (_entry("data/0", lambda data: data[:-4]), "reaches past its storage"),
    "big-endian": (_entry("byteorder", lambda _: b"big"), "big-endian"),
    "no pickle": (_entry("data.pkl", lambda _: None), "not one that torch.save wrote"),
    "pickle cut": (_entry("data.pkl", lambda data: data[:-20]), "its pickle is refused"),
    "compressed": (_compressed, "is compressed"),
    "lfs pointer": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "Git LFS pointer"),
    "empty": (lambda path: path.write_bytes(b""), "no file that torch.save wrote"),
    "something else": (lambda path: path.write_bytes(b"\x7fELF" + bytes(99)), "no file that torch.save wrote"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save({"w": torch.ones(4)}, path)
    damage, message = DAMAGES[kind]
    damage(path)
    with pytest.raises(CheckpointError, match=message):
        stored_tensors(path)


def test_a_truncated_legacy_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save({"w": torch.ones(4)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="more than the file"):
        stored_tensors(path)


def _hostile_pickle(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


HOSTILE = {
    "a tensor of terabytes over four bytes": b"(X\x01\x00\x00\x00w",
    "tuples nested a million deep": b")" + b"\x85" * 1_000_000,
    "a memo of billions": b"]r\xff\xff\xff\x7f",
    "an empty stack": b"0",
    "a string longer than the file": b"X\xff\xff\xff\x7fabc",
    "an extension code": b"\x82\x01",
    "a frozen set": b"(\x91",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_pickles_end_soon(case: str, tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", _hostile_pickle(HOSTILE[case]))
    with pytest.raises(CheckpointError):
        stored_tensors(path)


def test_a_tensor_that_repeats_its_storage_is_refused(tmp_path: Path) -> None:
    """Strides of 0 would make terabytes of four bytes."""
    path = tmp_path / "pytorch_model.bin"
    torch.save({"w": torch.ones(1).expand(10**6, 10**6)}, path)
    with pytest.raises(CheckpointError, match="reaches past its storage"):
        stored_tensors(path)


def test_a_local_header_that_leads_astray_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save({"w": torch.ones(4)}, path)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as archive:
        info = next(info for info in archive.infolist() if info.filename.endswith("data/0"))
    data[info.header_offset + 28 : info.header_offset + 30] = struct.pack("<H", 0xFFFF)
    path.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match="reaches past its storage"):
        stored_tensors(path)
