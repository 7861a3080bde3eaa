"""Dequantise weights of 8-bit or 4-bit floats with one scale per block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hfexport.checkpoint.stored import StoredTensor
from hfexport.errors import CheckpointError
from hfexport.modeling.conversion.quantised.tensors import Group, real

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["FOUR_BITS", "fp8", "mxfp4", "scaled"]

FOUR_BITS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
"""Values of the E2M1 codes: OCP Microscaling Formats specification 1.0, table 5."""

MXFP4_BLOCK = 32


def fp8(quantization: Mapping[str, Any], group: Group) -> None:
    """Replace a weight by `weight * weight_scale_inv` of its block, the format of DeepSeek-V3.

    A single scale, or one per row (`weight_scale`, as in FBGEMM), is applied likewise.
    https://huggingface.co/deepseek-ai/DeepSeek-V3/blob/main/README_WEIGHTS.md
    """
    block = quantization.get("weight_block_size")
    for base, ending in group.ending("_scale_inv", "weight_scale"):
        name = base + "weight" if ending == "weight_scale" else base
        weight, scale = group.take(name), group.take(base + ending)
        group.put(name, weight.shape, lambda weight=weight, scale=scale: scaled(weight, scale, block))  # type: ignore[misc]
        group.drop(
            base + ending, *(f"{name.removesuffix('weight')}{end}" for end in ("activation_scale", "input_scale"))
        )
        group.drop(*(f"{name}{end}" for end in ("_activation_scale", "_input_scale")))


def scaled(weight: StoredTensor, scale: StoredTensor, block: Any = None) -> NDArray[np.float32]:
    """Multiply values by the scale of their block; the last block of an axis may be partial.

    Args:
        weight: of shape (..., rows, columns).
        scale: one value, or an array with the same number of axes whose elements each cover a block.
        block: rows and columns of a block, if the shape of the scales does not determine them.
    """
    import numpy as np

    values, scales = real(weight), real(scale)
    if scales.size == 1:
        return values * scales.reshape(())
    if scales.ndim == values.ndim - 1:
        scales = scales[..., None]
    if scales.ndim != values.ndim:
        raise CheckpointError(
            f"tensor {scale.name!r} of shape {list(scale.shape)} does not scale one of shape {list(weight.shape)}",
            remedy="Copy or download the weights again.",
        )
    for axis, size in enumerate(values.shape):
        if scales.shape[axis] in (1, size):
            continue
        given = block[axis - values.ndim] if block and axis >= values.ndim - 2 else None
        length = int(given or -(-size // scales.shape[axis]))
        if -(-size // length) != scales.shape[axis]:
            raise CheckpointError(
                f"tensor {scale.name!r} has {scales.shape[axis]} scales for {size} values in blocks of {length}",
                remedy="Use the weights that belong to this config.json.",
            )
        scales = np.take(scales, np.arange(size) // length, axis=axis)
    return values * scales


def mxfp4(quantization: Mapping[str, Any], group: Group) -> None:
    """Decode two E2M1 values per byte, low half first, times a power of two per 32 values: `*_blocks`, `*_scales`.

    gpt-oss stores experts as (experts, out, in); the model expects (experts, in, out).
    https://cookbook.openai.com/articles/gpt-oss/verifying-implementations
    """
    del quantization
    for base, ending in group.ending("_blocks"):
        blocks, scales = group.take(base + ending), group.take(f"{base}_scales")
        experts, rows, count, size = blocks.shape
        shape = (experts, count * size * 2, rows)
        group.drop(base + ending, f"{base}_scales")
        group.put(base, shape, lambda blocks=blocks, scales=scales: _mxfp4(blocks, scales))  # type: ignore[misc]


def _mxfp4(blocks: StoredTensor, scales: StoredTensor) -> NDArray[np.float32]:
    import numpy as np

    codes = blocks.read()
    table = np.array(FOUR_BITS, np.float32)
    values = np.stack([table[codes & 15], table[codes >> 4]], axis=-1)
    values = values.reshape(*codes.shape[:-1], codes.shape[-1] * 2)
    powers = scales.read().astype(np.int32) - 127
    whole = np.ldexp(values, powers[..., None]).reshape(*codes.shape[:2], -1)
    return np.ascontiguousarray(np.swapaxes(whole, 1, 2)).astype(np.float32)
