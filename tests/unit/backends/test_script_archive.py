"""Archives of frozen modules, whose tensors are constants of the code: reproducible, aligned and unchanged in value."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

import torch

from hfexport.backends.torchscript.archive import ALIGNMENT, HEADER_BYTES, make_reproducible


def frozen(path: Path) -> torch.jit.ScriptModule:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = torch.nn.Sequential(torch.nn.Linear(600, 500), torch.nn.Tanh(), torch.nn.Linear(500, 3)).eval()
        traced = torch.jit.trace(model, torch.zeros(1, 600))
        module = torch.jit.freeze(traced)
        torch.jit.save(module, str(path))
    return module


def test_large_constants_are_copied(tmp_path: Path) -> None:
    first, second = tmp_path / "a/model.pt", tmp_path / "b/model.pt"  # an archive's records are named after its file
    for path in (first, second):
        path.parent.mkdir()
        module = frozen(path)
        make_reproducible(path)
    assert first.read_bytes() == second.read_bytes()
    assert list(first.parent.iterdir()) == [first]

    inputs = torch.randn(4, 600)
    assert torch.equal(torch.jit.load(str(first))(inputs), module(inputs))
    with zipfile.ZipFile(first) as archive, first.open("rb") as file:
        constants = [record for record in archive.infolist() if "/constants/" in record.filename]
        assert sum(record.file_size for record in constants) > 2**20
        for record in constants:
            file.seek(record.header_offset + HEADER_BYTES - 4)
            lengths = file.read(4)
            start = record.header_offset + HEADER_BYTES + sum(lengths[::2]) + 256 * sum(lengths[1::2])
            assert start % ALIGNMENT == 0
        assert not any("debug_pkl" in name or "serialization_id" in name for name in archive.namelist())
