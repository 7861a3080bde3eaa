"""TorchScript files of classes from modules whose names are no identifiers can be loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hfexport.backends.torchscript.trace import parsable_classes


class _Doubled(torch.nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values * 2.0


def _load(model: torch.nn.Module, path: Path) -> torch.jit.ScriptModule:
    torch.jit.save(torch.jit.trace(model, torch.ones(2)), path)
    return torch.jit.load(path)


@pytest.mark.parametrize("part", ["4fc8", "class", "é", "a b"])
def test_a_module_named_after_a_hash(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"transformers_modules.{part}.modeling"
    monkeypatch.setattr(_Doubled, "__module__", name)
    model = torch.nn.Sequential(_Doubled())
    with pytest.raises((RuntimeError, UnicodeDecodeError)):
        _load(model, tmp_path / "without.pt")
    with parsable_classes(model):
        loaded = _load(model, tmp_path / "with.pt")
    assert loaded(torch.ones(2)).tolist() == [2.0, 2.0]
    assert _Doubled.__module__ == name
