"""Weights of compressed-tensors against their formula, and the error for tensors that do not fit together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hfexport.checkpoint.safetensors_header import stored_tensors
from hfexport.errors import CheckpointError
from hfexport.modeling.conversion.quantised import dequantise
from quantised.packing import pack_words

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""Values of the four-bit float of nvfp4, with the sign in the highest bit:
https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf"""


def read(folder: Path, tensors: dict[str, torch.Tensor], format_name: str, bits: int) -> dict[str, np.ndarray]:
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "x.safetensors")
    groups = {"group_0": {"weights": {"num_bits": bits}}}
    quantization = {"quant_method": "compressed-tensors", "format": format_name, "config_groups": groups}
    stored = stored_tensors(folder / "x.safetensors")
    found = dequantise({"quantization_config": quantization}, stored)
    return {tensor.name: np.array(tensor.read()) for tensor in found}


def test_nvfp4_of_every_code(tmp_path: Path) -> None:
    codes = torch.arange(64, dtype=torch.uint8).reshape(2, 32) % 16
    scales = torch.tensor([[1.0, 2.0], [0.5, 4.0]])
    tensors = {
        "a.weight_packed": codes[:, ::2] | codes[:, 1::2] << 4,
        "a.weight_scale": scales.to(torch.float8_e4m3fn),
        "a.weight_global_scale": torch.tensor([8.0]),
        "a.input_global_scale": torch.tensor([3.0]),
    }
    found = read(tmp_path, tensors, "nvfp4-pack-quantized", 4)
    values = torch.tensor([*E2M1, *(-value for value in E2M1)])[codes.long()]
    assert list(found) == ["a.weight"]
    np.testing.assert_array_equal(found["a.weight"], (values * scales.repeat_interleave(16, 1) / 8).numpy())


def test_zero_points_of_rows(tmp_path: Path) -> None:
    codes = torch.tensor([[-3, 5], [7, 0]], dtype=torch.int8)
    scales, zeros = torch.tensor([[0.5], [2.0]]), torch.tensor([[1], [-2]], dtype=torch.int8)
    tensors = {"a.weight": codes, "a.weight_scale": scales, "a.weight_zero_point": zeros}
    found = read(tmp_path, tensors, "int-quantized", 8)
    np.testing.assert_array_equal(found["a.weight"], ((codes.float() - zeros) * scales).numpy())


def packed(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """A weight of 16 rows and 8 columns of four bits with a scale for each row; `None` leaves a tensor out."""
    codes = torch.arange(128).reshape(16, 8) % 16
    tensors: dict[str, Any] = {
        "weight_packed": pack_words(codes, 4),
        "weight_scale": torch.full((16, 1), 0.5),
        "weight_shape": torch.tensor([16, 8]),
    }
    return {f"a.{name}": value for name, value in {**tensors, **changes}.items() if value is not None}


def test_groups_in_another_order(tmp_path: Path) -> None:
    order = torch.tensor([1, 0, 1, 0, 1, 0, 1, 0], dtype=torch.int32)
    scales = torch.tensor([[1.0, 4.0]]).expand(16, 2)
    found = read(tmp_path, packed(weight_scale=scales, weight_g_idx=order), "pack-quantized", 4)
    codes = torch.arange(128).reshape(16, 8) % 16 - 8
    np.testing.assert_array_equal(found["a.weight"], (codes * scales[:, order.long()]).numpy())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weight_scale": None}, r"the quantised weights lack tensor 'a\.weight_scale'"),
        ({"weight_shape": None}, r"lack tensor 'a\.weight_shape' of two numbers"),
        ({"weight_shape": torch.tensor([16, 8, 1])}, r"lack tensor 'a\.weight_shape' of two numbers"),
        (
            {"weight_shape": torch.tensor([16, 80])},
            r"tensor 'a\.weight_packed' of shape \[16, 1\] holds no 80 columns of 4 bits",
        ),
    ],
)
def test_tensors_that_do_not_fit(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=said) as refused:
        read(tmp_path, packed(**changes), "pack-quantized", 4)
    assert refused.value.exit_code == 3
    assert refused.value.remedy
