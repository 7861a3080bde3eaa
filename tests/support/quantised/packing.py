"""Packs weights by the published formulas, for checkpoints of whole tiny models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

__all__ = ["METHODS", "pack_words", "quantise_checkpoint"]

Tensors = dict[str, torch.Tensor]
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def pack_words(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Integers of a few bits in 32-bit words along the last axis, the lowest bits first; `bits` divides 32."""
    per_word = 32 // bits
    parts = codes.reshape(*codes.shape[:-1], -1, per_word).to(torch.int64)
    words = sum(parts[..., place] << (bits * place) for place in range(per_word))
    assert isinstance(words, torch.Tensor)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def _groups(weight: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes (out, in), zero points and scales (out, groups) of four bits."""
    parts = weight.reshape(len(weight), -1, size)
    low, high = parts.amin(-1), parts.amax(-1)
    scale = ((high - low) / 15).half().float()
    zero = (-low / scale).round().clamp(1, 15)
    codes = (parts / scale[..., None] + zero[..., None]).round().clamp(0, 15)
    return codes.reshape(weight.shape).long(), zero.long(), scale


def gptq(weight: torch.Tensor) -> Tensors:
    codes, zero, scale = _groups(weight, 16)
    return {
        "qweight": pack_words(codes, 4).T.contiguous(),
        "qzeros": pack_words((zero.T - 1) & 15, 4),
        "scales": scale.T.contiguous().half(),
        "g_idx": (torch.arange(weight.shape[1]) // 16).int(),
    }


def awq(weight: torch.Tensor) -> Tensors:
    codes, zero, scale = _groups(weight, 16)

    def packed(values: torch.Tensor) -> torch.Tensor:
        ordered = values.reshape(len(values), -1, 8)[..., AWQ_ORDER].reshape(values.shape)
        return pack_words(ordered, 4)

    return {"qweight": packed(codes.T), "qzeros": packed(zero.T), "scales": scale.T.contiguous().half()}


def fp8(weight: torch.Tensor) -> Tensors:
    rows, columns = weight.shape
    block = 16
    scale = torch.empty(-(-rows // block), -(-columns // block))
    codes = torch.empty_like(weight)
    for row in range(len(scale)):
        for column in range(scale.shape[1]):
            at = (slice(row * block, (row + 1) * block), slice(column * block, (column + 1) * block))
            scale[row, column] = weight[at].abs().max() / 448
            codes[at] = weight[at] / scale[row, column]
    return {"weight": codes.to(torch.float8_e4m3fn), "weight_scale_inv": scale}


def int8(weight: torch.Tensor) -> Tensors:
    largest = weight.abs().amax(1)
    return {"weight": (weight * 127 / largest[:, None]).round().to(torch.int8), "SCB": largest}


def compressed(weight: torch.Tensor) -> Tensors:
    scale = weight.abs().amax(1, keepdim=True) / 127
    return {"weight": (weight / scale).round().to(torch.int8), "weight_scale": scale}


METHODS: dict[str, tuple[Callable[[torch.Tensor], Tensors], dict[str, Any]]] = {
    "gptq": (gptq, {"quant_method": "gptq", "bits": 4, "group_size": 16, "desc_act": False, "sym": False}),
    "awq": (awq, {"quant_method": "awq", "bits": 4, "group_size": 16, "zero_point": True, "version": "gemm"}),
    "fp8": (fp8, {"quant_method": "fp8", "weight_block_size": [16, 16], "activation_scheme": "dynamic"}),
    "bitsandbytes": (int8, {"quant_method": "bitsandbytes", "load_in_8bit": True}),
    "compressed-tensors": (compressed, {"quant_method": "compressed-tensors", "format": "int-quantized"}),
}


def quantise_checkpoint(folder: Path, method: str) -> None:
    """Quantise the projections of a checkpoint's layers in place, and say so in config.json."""
    pack, quantization = METHODS[method]
    tensors: Tensors = {}
    for name, value in load_file(folder / "model.safetensors").items():
        if "_proj.weight" not in name:
            tensors[name] = value
            continue
        tensors |= {f"{name.removesuffix('weight')}{part}": packed for part, packed in pack(value.float()).items()}
    save_file(
        {name: value.contiguous() for name, value in tensors.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = quantization
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
