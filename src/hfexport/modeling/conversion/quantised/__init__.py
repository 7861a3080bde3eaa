"""Dequantise weights tensor by tensor, by the published formula of each format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from hfexport.checkpoint.quantized import quantization_method, quantization_settings
from hfexport.checkpoint.stored import StoredTensor
from hfexport.errors import UnsupportedError
from hfexport.modeling.conversion.quantised import (
    bitsandbytes,
    compressed_tensors,
    float_blocks,
    packed_rows,
)
from hfexport.modeling.conversion.quantised.tensors import Group, float_dtype

__all__ = ["DEQUANTISED", "dequantise"]

Dequantiser = Callable[[Mapping[str, Any], Group], None]

DEQUANTISED: Final[Mapping[str, Dequantiser]] = MappingProxyType(
    {
        "fp8": float_blocks.fp8,
        "fbgemm_fp8": float_blocks.fp8,
        "mxfp4": float_blocks.mxfp4,
        "compressed-tensors": compressed_tensors.dequantise,
        "bitsandbytes": bitsandbytes.dequantise,
        "gptq": packed_rows.gptq,
        "awq": packed_rows.awq,
    }
)
"""Function that replaces quantised tensors, by `quant_method` of config.json."""


def dequantise(config: Mapping[str, Any], stored: Sequence[StoredTensor]) -> list[StoredTensor]:
    """Replace quantised tensors and their scales by floating-point weights; other tensors stay unchanged.

    A weight is computed when its tensor's `read` is called.

    Args:
        config: config.json, with a `quantization_config`, perhaps in the config of a model within the model.
        stored: all tensors of the checkpoint.

    Raises:
        UnsupportedError: the quantisation method, or its variant, is not implemented.
        CheckpointError: scales or zero points are missing or of the wrong shape.
    """
    method = quantization_method(config)
    if method not in DEQUANTISED:
        raise UnsupportedError(
            f"config.json: weights quantised by {method!r} cannot be turned into floating-point weights;"
            f" known are {', '.join(DEQUANTISED)}",
            remedy="Load the model in transformers with the library of that method, call `model.dequantize()`, and save"
            " it with `save_pretrained`; then export that folder.",
        )
    group = Group(stored, float_dtype(config), str(config.get("model_type", "")))
    DEQUANTISED[method](quantization_settings(config), group)
    return group.result()
