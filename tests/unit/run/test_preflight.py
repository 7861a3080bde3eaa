"""A run that cannot fit is refused with the numbers before it starts; one that fits is not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hfexport.checkpoint.weights import WeightFiles, WeightFormat
from hfexport.errors import InputsError
from hfexport.run.preflight import Needs, refuse_large_conversion, refuse_misfit

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
    with pytest.raises(InputsError, match="at least 530.6 MB of memory are needed, and 500.0 MB are free"):
        refuse_misfit(LLAMA, tmp_path, 500_000_000)
    said = refuse_misfit(LLAMA, tmp_path, 3_000_000_000)
    assert "12.3 GB of disk" in said and "530.6 MB of memory, 3.0 GB free" in said


def test_both_are_told_at_once(disk: dict[str, int], tmp_path: Path) -> None:
    disk["free"] = 1
    with pytest.raises(InputsError) as raised:
        refuse_misfit(LLAMA, tmp_path, 1)
    assert len(raised.value.problems) == 2


def test_little_is_not_mentioned(disk: dict[str, int], tmp_path: Path) -> None:
    assert refuse_misfit(Needs(0, 10**6, 10**5, ("onnx",)), tmp_path, 10**9) == ""


@pytest.mark.parametrize(("weight_format", "refused"), [("tensorflow-h5", True), ("pytorch", False)])
def test_a_conversion_that_cannot_fit_is_refused_before_it_starts(
    weight_format: WeightFormat, refused: bool, disk: dict[str, int], tmp_path: Path
) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(10**6))
    weights = WeightFiles(weight_format, (path,), None, {}, ())
    disk["free"] = 10**6
    if not refused:
        refuse_large_conversion(weights, ("onnx",), tmp_path)
        return
    with pytest.raises(InputsError, match="900 kB for the weights as safetensors, 450 kB for onnx"):
        refuse_large_conversion(weights, ("onnx", "neuron"), tmp_path)
