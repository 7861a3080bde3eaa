"""A run that cannot fit is refused with the numbers before it starts; one that fits is not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hfexport.errors import InputsError
from hfexport.run.preflight import Needs, refuse_misfit

LLAMA = Needs(4_400_000_000, 4_400_000_000, 262_144_000, ("onnx", "torchscript"))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    free = {"free": 10**12}
    usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2 * 10**12, 0, free["free"]))
    return free


def test_a_full_disk_is_refused_with_the_numbers(disk: dict[str, int], tmp_path: Path) -> None:
    disk["free"] = 12_300_000_000
    assert LLAMA.disk_bytes == 12_320_000_000
    with pytest.raises(InputsError, match=r"at least 12.3 GB .* 4.4 GB for torchscript.* 12.3 GB are free") as raised:
        refuse_misfit(LLAMA, tmp_path, None)
    assert raised.value.exit_code == 2
    disk["free"] = LLAMA.disk_bytes
    assert refuse_misfit(LLAMA, tmp_path, None)


def test_a_small_container_is_refused_with_the_numbers(disk: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(InputsError, match="at least 531 MB of memory are needed, and 500 MB are free"):
        refuse_misfit(LLAMA, tmp_path, 500_000_000)
    said = refuse_misfit(LLAMA, tmp_path, 3_000_000_000)
    assert "12.3 GB of disk" in said and "531 MB of memory, 3.0 GB free" in said


def test_both_are_told_at_once(disk: dict[str, int], tmp_path: Path) -> None:
    disk["free"] = 1
    with pytest.raises(InputsError) as raised:
        refuse_misfit(LLAMA, tmp_path, 1)
    assert len(raised.value.problems) == 2


def test_little_is_not_mentioned(disk: dict[str, int], tmp_path: Path) -> None:
    assert refuse_misfit(Needs(0, 10**6, 10**5, ("onnx",)), tmp_path, 10**9) == ""
