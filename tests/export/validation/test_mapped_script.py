"""A TorchScript archive whose tensors are mapped answers as `torch.jit.load` does, and what is damaged is refused."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

import pytest
import torch

from hfexport.backends.torchscript.archive import make_reproducible
from hfexport.validation.mapped_script import load_mapped


class _Model(torch.nn.Module):
    """Has constants of its code, tensors that share memory, and one of no elements."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(64, 64)
        self.second = torch.nn.Linear(64, 64)
        self.second.weight = self.first.weight
        self.register_buffer("empty", torch.empty(0))
        self.register_buffer("bias_16", torch.randn(64, dtype=torch.float16))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        table = torch.tensor([[1.5, -2.0], [0.25, 4.0]])
        indices = torch.tensor([1, 0])
        hidden = self.second(torch.tanh(self.first(x))) + self.bias_16.float() + self.empty.sum()
        return hidden, hidden[:, :2] @ table[indices]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "model.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        traced = torch.jit.trace(_Model().eval().requires_grad_(False), torch.randn(2, 64))
    torch.jit.save(traced, str(path), _extra_files={"hfexport.json": "described"})
    make_reproducible(path)
    return path


def _mapped_from(tensor: torch.Tensor) -> str:
    for line in Path("/proc/self/maps").read_text().splitlines():
        parts = line.split(maxsplit=5)
        begin, end = (int(address, 16) for address in parts[0].split("-"))
        if begin <= tensor.data_ptr() < end:
            return parts[5] if len(parts) > 5 else ""
    return ""


def test_it_answers_as_a_loaded_one_and_its_tensors_are_pages_of_the_file(archive: Path) -> None:
    mapped, extra = load_mapped(archive, "hfexport.json")
    loaded = torch.jit.load(str(archive))
    assert extra == b"described"
    assert any("constants/" in name for name in zipfile.ZipFile(archive).namelist())
    for size in (2, 5):
        x = torch.randn(size, 64)
        for given, wanted in zip(mapped(x), loaded(x), strict=True):
            assert torch.equal(given, wanted)
    assert _mapped_from(mapped.first.weight) == str(archive)
    assert _mapped_from(loaded.first.weight) != str(archive)


def test_what_is_written_to_a_tensor_does_not_reach_the_file(archive: Path) -> None:
    before = archive.read_bytes()
    mapped, _ = load_mapped(archive, "hfexport.json")
    mapped.first.weight.add_(1.0)
    assert archive.read_bytes() == before


def test_a_flipped_bit_of_a_tensor_is_refused(archive: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        record = next(info for info in opened.infolist() if "/data/" in info.filename and info.file_size > 1000)
    content = bytearray(archive.read_bytes())
    content[record.header_offset + 1000] ^= 1
    archive.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        load_mapped(archive, "hfexport.json")


def test_a_truncated_archive_is_refused(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises((ValueError, RuntimeError)):
        load_mapped(archive, "hfexport.json")
