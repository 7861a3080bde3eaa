"""Dequantise compressed-tensors: 8-bit integers or floats, integers packed into words, and nvfp4."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hfexport.checkpoint.stored import StoredTensor
from hfexport.errors import CheckpointError, UnsupportedError
from hfexport.modeling.conversion.quantised.float_blocks import FOUR_BITS, scaled
from hfexport.modeling.conversion.quantised.tensors import Group, real, unpacked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["dequantise"]

FORMATS = ("int-quantized", "float-quantized", "naive-quantized", "pack-quantized", "nvfp4-pack-quantized")
_OF_ACTIVATIONS = ("input_scale", "input_zero_point", "input_global_scale", "output_scale", "output_zero_point")


def dequantise(quantization: Mapping[str, Any], group: Group) -> None:
    """Replace weights by `(code - zero) * scale`; codes may be packed.

    https://github.com/neuralmagic/compressed-tensors/tree/main/src/compressed_tensors/compressors
    """
    groups = quantization.get("config_groups") or {}
    formats = {str(quantization.get("format"))} | {str(one["format"]) for one in groups.values() if one.get("format")}
    formats -= {"None", "dense", "mixed-precision"}
    if unknown := sorted(formats - set(FORMATS)):
        raise UnsupportedError(
            f"config.json: compressed-tensors weights in the format {unknown[0]!r} cannot be turned into floating-point"
            f" weights; known are {', '.join(FORMATS)}",
            remedy="Decompress the model with the library: load it in transformers with `run_compressed=False`, and save it"
            " with `save_pretrained`; then export that folder.",
        )
    bits = {int(one["weights"]["num_bits"]) for one in groups.values() if one.get("weights")}
    for base, _ in group.ending(".weight_packed"):
        _put_packed(group, base, bits)
    for base, _ in group.ending(".weight_scale"):
        weight, scale = group.take(f"{base}.weight"), group.take(f"{base}.weight_scale")
        zero = group.find(f"{base}.weight_zero_point")
        group.put(
            weight.name,
            weight.shape,
            lambda weight=weight, scale=scale, zero=zero: _scaled(weight, scale, zero),  # type: ignore[misc]
        )
        group.drop(f"{base}.weight_scale", f"{base}.weight_zero_point", f"{base}.weight_g_idx")
    for base, ending in group.ending(*(f".{name}" for name in _OF_ACTIVATIONS)):
        group.drop(base + ending)


def _put_packed(group: Group, base: str, known_bits: set[int]) -> None:
    names = (
        "weight_packed",
        "weight_scale",
        "weight_zero_point",
        "weight_shape",
        "weight_g_idx",
        "weight_global_scale",
    )
    parts = {name: found for name in names if (found := group.find(f"{base}.{name}")) is not None}
    group.drop(*(f"{base}.{name}" for name in names))
    packed, scale = parts["weight_packed"], parts.get("weight_scale")
    if scale is None:
        raise CheckpointError(
            f"the quantised weights lack tensor {base + '.weight_scale'!r}",
            remedy="Copy or download the weights again.",
        )
    if "weight_global_scale" in parts:
        shape = (packed.shape[0], packed.shape[1] * 2)
        group.put(f"{base}.weight", shape, lambda: _nvfp4(packed, scale, parts["weight_global_scale"]))
        return
    rows, columns = (int(size) for size in _shape(parts, base))
    bits = next((number for number in known_bits if -(-columns * number // 32) == packed.shape[1]), None)
    if bits is None:
        raise CheckpointError(
            f"tensor {packed.name!r} of shape {list(packed.shape)} holds no {columns} columns of"
            f" {' or '.join(map(str, sorted(known_bits))) or 'no'} bits",
            remedy="Use the weights that belong to this config.json.",
        )
    group.put(f"{base}.weight", (rows, columns), lambda: _packed(parts, (rows, columns), bits))


def _shape(parts: Mapping[str, StoredTensor], base: str) -> NDArray[Any]:
    """Return the shape of a packed weight, which is stored as a tensor."""
    found = parts.get("weight_shape")
    if found is None or found.shape != (2,):
        raise CheckpointError(
            f"the quantised weights lack tensor {base + '.weight_shape'!r} of two numbers",
            remedy="Copy or download the weights again.",
        )
    return found.read()


def _scaled(weight: StoredTensor, scale: StoredTensor, zero: StoredTensor | None) -> NDArray[np.float32]:
    if zero is None or not zero.read().any():
        return scaled(weight, scale)
    ones = replace(weight, dtype="F32", read=lambda: real(weight) * 0 + 1)
    offset = scaled(ones, zero)
    return scaled(replace(weight, dtype="F32", read=lambda: real(weight) - offset), scale)


def _packed(parts: Mapping[str, StoredTensor], shape: tuple[int, int], bits: int) -> NDArray[np.float32]:
    """Unpack integers that are stored with an offset of half their range; zero points are packed along the rows."""
    import numpy as np

    half = 2 ** (bits - 1)
    codes = unpacked(parts["weight_packed"].read(), bits, axis=1)[:, : shape[1]] - half
    scales = real(parts["weight_scale"]).reshape(shape[0], -1)
    zeros = np.zeros_like(scales)
    if (zero := parts.get("weight_zero_point")) is not None:
        stored = zero.read()
        packed = zero.dtype == "I32" and stored.shape[0] != shape[0]
        zeros = (unpacked(stored, bits, axis=0)[: shape[0]] - half if packed else stored).astype(np.float32)
    if (index := parts.get("weight_g_idx")) is not None and (index.read() >= 0).all():
        groups = index.read().astype(np.int64)
    else:
        groups = np.arange(shape[1]) // -(-shape[1] // scales.shape[1])
    whole: NDArray[np.float32] = (codes - zeros[:, groups]) * scales[:, groups]
    return whole


def _nvfp4(packed: StoredTensor, scale: StoredTensor, whole: StoredTensor) -> NDArray[np.float32]:
    """Decode two E2M1 values per byte, low half first, times the scale of their 16 over that of the tensor."""
    import numpy as np

    codes = packed.read()
    table = np.array(FOUR_BITS, np.float32)
    values = np.stack([table[codes & 15], table[codes >> 4]], axis=-1).reshape(codes.shape[0], -1)
    scales = real(scale) / real(whole).reshape(())
    unscaled: NDArray[np.float32] = values * np.repeat(scales, values.shape[1] // scales.shape[1], axis=1)
    return unscaled
