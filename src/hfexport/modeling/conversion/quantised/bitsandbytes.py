"""Dequantise bitsandbytes: LLM.int8() and the 4-bit formats nf4 and fp4, with doubly quantised scales."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hfexport.checkpoint.stored import StoredTensor
from hfexport.errors import CheckpointError
from hfexport.modeling.conversion.quantised.tensors import Group, real

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["dequantise"]

INT8_LARGEST = 127
_STATES = (".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4")


def dequantise(quantization: Mapping[str, Any], group: Group) -> None:
    """Replace int8 weights (with a tensor `SCB`) and 4-bit weights (with a tensor `quant_state`).

    int8: `weight * SCB / 127` by row (https://arxiv.org/abs/2208.07339). 4 bits: `quant_map[code] * absmax` by block of
    the flat weight, high half of each byte first (https://arxiv.org/abs/2305.14314).
    """
    del quantization
    for base, _ in group.ending(".SCB"):
        weight, largest = group.take(f"{base}.weight"), group.take(f"{base}.SCB")
        group.put(weight.name, weight.shape, lambda weight=weight, largest=largest: _int8(weight, largest))  # type: ignore[misc]
        group.drop(f"{base}.SCB", f"{base}.weight_format")
    for name, ending in group.ending(*_STATES):
        state = _state(group.take(name + ending))
        parts = {"codes": group.take(name), "absmax": group.take(f"{name}.absmax")}
        parts["map"] = group.take(f"{name}.quant_map")
        if (nested := group.find(f"{name}.nested_absmax")) is not None:
            parts |= {"nested_absmax": nested, "nested_map": group.take(f"{name}.nested_quant_map")}
        group.put(name, state["shape"], lambda parts=parts, state=state: _four_bits(parts, state))  # type: ignore[misc]
        further = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")
        group.drop(name + ending, *(f"{name}.{part}" for part in further))


def _int8(weight: StoredTensor, largest: StoredTensor) -> NDArray[np.float32]:
    import numpy as np

    return real(weight) * (real(largest).reshape(-1, 1) / np.float32(INT8_LARGEST))


def _state(tensor: StoredTensor) -> dict[str, Any]:
    """Decode the JSON text in a tensor of bytes: block sizes, shape and, if scales are quantised, their mean."""
    try:
        state: dict[str, Any] = json.loads(bytes(tensor.read()))
        valid = state["blocksize"] > 0 and all(type(size) is int and size >= 0 for size in state["shape"])
    except (ValueError, KeyError, TypeError, RecursionError):
        valid = False
    if not valid:
        raise CheckpointError(
            f"tensor {tensor.name!r} does not describe a weight of bitsandbytes",
            remedy="Copy or download the weights again.",
        )
    return state


def _four_bits(parts: Mapping[str, StoredTensor], state: Mapping[str, Any]) -> NDArray[np.float32]:
    import numpy as np

    codes = parts["codes"].read().reshape(-1)
    count = math.prod(state["shape"])
    values = real(parts["map"])[np.stack([codes >> 4, codes & 15], axis=-1).reshape(-1)[:count]]
    absmax = parts["absmax"].read().reshape(-1)
    if "nested_absmax" in parts:
        scales = np.repeat(real(parts["nested_absmax"]), int(state["nested_blocksize"]))[: absmax.size]
        absmax = real(parts["nested_map"])[absmax] * scales + np.float32(state["nested_offset"])
    scaled: NDArray[np.float32] = values * np.repeat(absmax.astype(np.float32), int(state["blocksize"]))[:count]
    return scaled
