"""Tensors of a quantised checkpoint by name, and the weights that replace them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from hfexport.checkpoint.stored import StoredTensor
from hfexport.errors import CheckpointError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Group", "float_dtype", "real", "unpacked"]

_WITH_CONV1D: Final = ("gpt2", "imagegpt", "openai-gpt", "decision_transformer")
"""Architectures whose projections are `Conv1D` of transformers: their weights are (in, out), and quantised ones (out, in)."""

_CONV1D: Final = ("c_attn", "c_proj", "c_fc", "q_attn")
"""Names of these projections."""

_DTYPES: Final = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}


def float_dtype(config: Mapping[str, Any]) -> str:
    """Return safetensors' name of the dtype that transformers dequantises to.

    It is `dtype` of config.json, or of its `text_config`, or F32.
    """
    inner = config.get("text_config")
    configs = [config, inner] if isinstance(inner, dict) else [config]
    named = (one.get(key) for one in configs for key in ("dtype", "torch_dtype"))
    given = str(next((name for name in named if name), "float32"))
    return _DTYPES.get(given.removeprefix("torch."), "F32")


class Group:
    """Tensors of a checkpoint, some of which are replaced by dequantised weights.

    Args:
        stored: all tensors.
        dtype: dtype of the dequantised weights.
        model_type: architecture of the model.
    """

    def __init__(self, stored: Sequence[StoredTensor], dtype: str, model_type: str = "") -> None:
        self._tensors = {tensor.name: tensor for tensor in stored}
        self._dtype = dtype
        self._transposed = _CONV1D if model_type in _WITH_CONV1D else ()

    def ending(self, *endings: str) -> Iterator[tuple[str, str]]:
        """Yield the names that end in one of `endings`, split into the part before it and the ending."""
        for name in list(self._tensors):
            for ending in endings:
                if name.endswith(ending):
                    yield name.removesuffix(ending), ending

    def find(self, name: str) -> StoredTensor | None:
        return self._tensors.get(name)

    def take(self, name: str) -> StoredTensor:
        """Return the tensor `name`.

        Raises:
            CheckpointError: there is no such tensor.
        """
        if (found := self._tensors.get(name)) is None:
            raise CheckpointError(
                f"the quantised weights lack tensor {name!r}", remedy="Copy or download the weights again."
            )
        return found

    def drop(self, *names: str) -> None:
        """Remove tensors that the floating-point model does not use; missing ones are ignored."""
        for name in names:
            self._tensors.pop(name, None)

    def put(self, name: str, shape: Sequence[int], values: Callable[[], NDArray[np.float32]]) -> None:
        """Replace a quantised weight by its dequantised values.

        Args:
            name: name of the weight.
            shape: shape of the weight, (out, in) of a projection.
            values: function that computes the values, with `shape` or the same number of elements.
        """
        whole = tuple(int(size) for size in shape)
        transposed = name.removesuffix(".weight").rpartition(".")[2] in self._transposed

        def read() -> NDArray[Any]:
            computed = values()
            if computed.size != math.prod(whole):
                raise CheckpointError(
                    f"tensor {name!r} should have shape {list(whole)}; its quantised values and scales give"
                    f" {computed.size} elements",
                    remedy="Copy or download the weights again.",
                )
            found = narrowed(computed.reshape(whole), self._dtype)
            return found.T.copy() if transposed else found

        self._tensors[name] = StoredTensor(name, self._dtype, whole[::-1] if transposed else whole, read)

    def result(self) -> list[StoredTensor]:
        return list(self._tensors.values())


def narrowed(values: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """Round to `dtype`, ties to even; bfloat16 is returned as 16-bit integers."""
    import numpy as np

    if dtype == "F32":
        return values.astype(np.float32)
    if dtype == "F16":
        return values.astype(np.float16)
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded: NDArray[Any] = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return rounded


def real(tensor: StoredTensor) -> NDArray[np.float32]:
    """Return the values of a floating-point (including 8-bit) or integer tensor as float32.

    8-bit formats: https://arxiv.org/abs/2209.05433.
    """
    import numpy as np

    data = tensor.read()
    if tensor.dtype == "BF16":
        widened: NDArray[np.float32] = (data.astype(np.uint32) << 16).view(np.float32)
        return widened
    if tensor.dtype in ("F8_E4M3", "F8_E5M2"):
        decoded: NDArray[np.float32] = _eight_bits(4 if tensor.dtype == "F8_E4M3" else 5)[data]
        return decoded
    whole: NDArray[np.float32] = data.astype(np.float32)
    return whole


def _eight_bits(exponent_bits: int) -> NDArray[np.float32]:
    """Return the values of all 256 codes."""
    import numpy as np

    codes = np.arange(256)
    mantissa_bits = 7 - exponent_bits
    bias = 2 ** (exponent_bits - 1) - 1
    exponent, mantissa = (codes >> mantissa_bits) & (2**exponent_bits - 1), codes & (2**mantissa_bits - 1)
    scale = np.where(exponent == 0, 2.0 ** (1 - bias), 2.0 ** (exponent - bias))
    values = scale * (np.where(exponent == 0, 0.0, 1.0) + mantissa / 2**mantissa_bits)
    top = 2**exponent_bits - 1
    if exponent_bits == 4:
        values[(exponent == top) & (mantissa == 7)] = np.nan
    else:
        values[exponent == top] = np.where(mantissa[exponent == top] == 0, np.inf, np.nan)
    signed: NDArray[np.float32] = np.where(codes >= 128, -values, values).astype(np.float32)
    return signed


def unpacked(packed: NDArray[Any], bits: int, axis: int) -> NDArray[np.int32]:
    """Unpack unsigned integers of `bits` bits from 32-bit words along `axis`, lowest bits first.

    A value may span two words, as with 3 bits.
    """
    import numpy as np

    words = np.moveaxis(packed, axis, -1).astype("<i4")
    rows = np.ascontiguousarray(words).view(np.uint8).reshape(*words.shape[:-1], -1)
    single = np.unpackbits(rows, axis=-1, bitorder="little")
    count = single.shape[-1] // bits
    parts = single[..., : count * bits].reshape(*single.shape[:-1], count, bits)
    values = np.zeros(parts.shape[:-1], np.int32)
    for bit in range(bits):
        values |= parts[..., bit].astype(np.int32) << bit
    return np.moveaxis(values, -1, axis)
