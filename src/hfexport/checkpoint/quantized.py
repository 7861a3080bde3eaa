"""Check whether the weights are quantised as `quantization_config` in config.json declares."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from hfexport.checkpoint.safetensors_header import TensorInfo
from hfexport.checkpoint.stored import StoredTensor
from hfexport.errors import CheckpointError

__all__ = [
    "is_quantized",
    "quantization_method",
    "quantization_settings",
    "refuse_plain_weights",
    "without_quantization",
]

_KEY: Final = "quantization_config"

_PLAIN: Final = ("F64", "F32", "F16", "BF16")
_MARKS: Final = ("absmax", "quant_map", "scale", "scales", "scale_inv", "SCB", "weight_shape", "zero_point", "zeros")
"""Endings of the names of tensors that are stored beside quantised weights."""


def refuse_plain_weights(
    path: Path, config: Mapping[str, Any], tensors: Mapping[str, TensorInfo | StoredTensor]
) -> None:
    """Raise an error if config.json declares quantised weights and the weights are not quantised.

    Args:
        path: path of config.json, for the message.
        config: content of config.json.
        tensors: tensors of all weight files, by name.

    Raises:
        CheckpointError: the weights are plain floating-point numbers without scales.
    """
    method = quantization_method(config)
    if not method or is_quantized({name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}):
        return
    dtypes = ", ".join(sorted({tensor.dtype for tensor in tensors.values()}))
    raise CheckpointError(
        f"{path}: `quantization_config` says that the weights are quantised ({method}), but they are plain {dtypes}"
        " without scales",
        remedy="Use the weights that belong to this config.json, or remove `quantization_config` from it if these are right.",
    )


def quantization_method(config: Mapping[str, Any]) -> str:
    """Return the quantisation method that config.json declares, such as `gptq`; empty if there is none."""
    quantization = quantization_settings(config)
    if not quantization:
        return ""
    if quantization.get("quant_method"):
        return str(quantization["quant_method"])
    # Early versions of bitsandbytes do not name the method.
    marks = ("load_in_4bit", "load_in_8bit")
    return "bitsandbytes" if any(quantization.get(mark) for mark in marks) else "unnamed"


def quantization_settings(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the `quantization_config` of config.json, or of a model within it such as `text_config`; empty if none."""
    inner = (value for value in config.values() if isinstance(value, dict))
    found = (one[_KEY] for one in (config, *inner) if isinstance(one.get(_KEY), dict) and one[_KEY])
    return next(found, {})


def without_quantization(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return config.json for weights that are dequantised, of the model and of the models within it."""
    plain = {key: value for key, value in config.items() if key != _KEY}
    return {
        key: {name: kept for name, kept in value.items() if name != _KEY} if isinstance(value, dict) else value
        for key, value in plain.items()
    }


def is_quantized(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> bool:
    """Return whether any tensor, given by name, dtype and shape, is quantised or a scale of a quantised one."""
    quantized = any(dtype not in _PLAIN and len(shape) > 1 for dtype, shape in tensors.values())
    return quantized or any(name.endswith(_MARKS) for name in tensors)
