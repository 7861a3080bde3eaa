"""Dequantise GPTQ and AWQ: small integers in 32-bit words, with a scale and a zero point per group of inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hfexport.checkpoint.stored import StoredTensor
from hfexport.errors import UnsupportedError
from hfexport.modeling.conversion.quantised.tensors import Group, real, unpacked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["awq", "gptq"]

WORD_BITS = 32
AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""Position in a word of each of the eight columns in AWQ's kernels."""


def gptq(quantization: Mapping[str, Any], group: Group) -> None:
    """Replace weights by `scale * (code - zero)`, codes packed along the inputs.

    The first version of the format stores zero points less one.

    https://github.com/AutoGPTQ/AutoGPTQ/blob/main/auto_gptq/nn_modules/qlinear/qlinear_cuda_old.py
    """
    bits = _bits(quantization, (2, 3, 4, 8))
    if quantization.get("checkpoint_format", "gptq") not in ("gptq", "gptq_v2"):
        raise _unknown(f"GPTQ weights in the format {quantization['checkpoint_format']!r}")
    less = 0 if quantization.get("checkpoint_format") == "gptq_v2" else 1
    for base, _ in group.ending(".qweight"):
        parts = _parts(group, base)
        rows, columns = parts["qweight"].shape[0] * WORD_BITS // bits, parts["qweight"].shape[1]
        group.put(f"{base}.weight", (columns, rows), lambda parts=parts: _gptq(parts, bits, less))  # type: ignore[misc]


def awq(quantization: Mapping[str, Any], group: Group) -> None:
    """Replace weights by `scale * (code - zero)`, 4-bit codes packed along the outputs in the order of AWQ's kernels.

    https://github.com/casper-hansen/AutoAWQ/blob/main/awq/utils/packing_utils.py
    """
    bits = _bits(quantization, (4,))
    if str(quantization.get("version", "gemm")).lower() != "gemm":
        raise _unknown(f"AWQ weights in the format {quantization['version']!r}")
    for base, _ in group.ending(".qweight"):
        parts = _parts(group, base)
        rows, columns = parts["qweight"].shape[0], parts["qweight"].shape[1] * WORD_BITS // bits
        group.put(f"{base}.weight", (columns, rows), lambda parts=parts: _awq(parts, bits))  # type: ignore[misc]


def _parts(group: Group, base: str) -> dict[str, StoredTensor]:
    """Take the tensors of a layer out of the group and return them."""
    parts = {name: group.take(f"{base}.{name}") for name in ("qweight", "qzeros", "scales")}
    if (found := group.find(f"{base}.g_idx")) is not None:
        parts["g_idx"] = found
    group.drop(*(f"{base}.{name}" for name in parts))
    return parts


def _bits(quantization: Mapping[str, Any], known: tuple[int, ...]) -> int:
    bits = quantization.get("bits", quantization.get("w_bit", 4))
    if bits not in known:
        raise _unknown(f"{quantization.get('quant_method')} weights of {bits!r} bits")
    return int(bits)


def _unknown(what: str) -> UnsupportedError:
    return UnsupportedError(
        f"config.json: {what} cannot be turned into floating-point weights",
        remedy="Load the model in transformers with the library of that format, call `model.dequantize()`, and save it with"
        " `save_pretrained`; then export that folder.",
    )


def _gptq(parts: Mapping[str, StoredTensor], bits: int, less: int) -> NDArray[np.float32]:
    import numpy as np

    codes = unpacked(parts["qweight"].read(), bits, axis=0)
    zeros = (unpacked(parts["qzeros"].read(), bits, axis=1) + less) & (2**bits - 1)
    if "g_idx" in parts:
        groups = parts["g_idx"].read().astype(np.int64)
    else:
        groups = np.arange(len(codes)) // -(-len(codes) // len(zeros))
    scales = real(parts["scales"])
    weight: NDArray[np.float32] = (codes - zeros[groups, : codes.shape[1]]) * scales[groups]
    return np.ascontiguousarray(weight.T)


def _awq(parts: Mapping[str, StoredTensor], bits: int) -> NDArray[np.float32]:
    import numpy as np

    def ordered(packed: NDArray[Any]) -> NDArray[np.int32]:
        values = unpacked(packed, bits, axis=1)
        return values.reshape(len(values), -1, len(AWQ_ORDER))[..., AWQ_ORDER].reshape(values.shape)

    codes, zeros = ordered(parts["qweight"].read()), ordered(parts["qzeros"].read())
    groups = np.arange(len(codes)) // -(-len(codes) // len(zeros))
    weight: NDArray[np.float32] = (codes - zeros[groups]) * real(parts["scales"])[groups]
    return np.ascontiguousarray(weight.T)
