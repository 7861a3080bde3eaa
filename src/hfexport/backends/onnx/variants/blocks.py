"""4-bit variants: weights in blocks with a scale each, for ONNX Runtime's operators `MatMulNBits` and `MatMulBnb4`.

Formats: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md. The values are those of
`onnxruntime.quantization`'s `MatMulNBitsQuantizer` (symmetric) and `MatMulBnb4Quantizer`, computed for a few rows at a time.
A table that is also an output layer is looked up in its 4-bit form by `GatherBlockQuantized`; other tables get 8 bits.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from hfexport.backends.onnx.variants.graph import Derived, Opened, Stored
from hfexport.backends.onnx.variants.integers import CHUNK_ELEMENTS, SMALLEST, IntegerWeights
from hfexport.backends.onnx.variants.rewrite import Matrix, Scope

__all__ = ["BLOCK", "NF4", "NF4_BLOCK", "BlockWeights", "NormalFloatWeights", "four_bits", "normal_floats"]

Array = NDArray[Any]

MICROSOFT: Final = "com.microsoft"

BLOCK: Final = 32
"""Number of inputs that share a scale, as in Transformers.js's files."""

NF4_BLOCK: Final = 64
"""Number of elements that share a scale, as in bitsandbytes."""

_ACCURACY_LEVEL: Final = 4
"""`MatMulNBits` may quantise float32 activations to 8 bits.

Not float16 ones: in the branches of a merged decoder, ONNX Runtime 1.32 then gives wrong results on CPU (0.76 of cosine
similarity instead of 0.95), unless `session.disable_prepacking` is set.
"""

NF4: Final = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""Code book of bitsandbytes' 4-bit normal float (https://arxiv.org/abs/2305.14314, appendix E)."""


def four_bits(rows: Array) -> tuple[Array, Array]:
    """Quantise each block of 32 elements of each row to 4 bits: `value ≈ (nibble - 8) * scale`.

    Args:
        rows: (N, K), float32 or float16.

    Returns:
        Nibbles (N, blocks, 16), the first of two in the lower half of a byte; scales (N, blocks) in the dtype of `rows`.
    """
    count, width = rows.shape
    blocks = -(-width // BLOCK)
    packed = np.empty((count, blocks, BLOCK // 2), np.uint8)
    scales = np.empty((count, blocks), rows.dtype)
    step = max(1, CHUNK_ELEMENTS // max(1, width))
    for start in range(0, count, step):
        part = np.asarray(rows[start : start + step], np.float32)
        part = np.pad(part, ((0, 0), (0, blocks * BLOCK - width))).reshape(len(part), blocks, BLOCK)
        largest = np.take_along_axis(part, np.abs(part).argmax(axis=2, keepdims=True), axis=2)
        scale = (largest / -8).astype(rows.dtype)
        inverse = np.where(scale == 0, 0, 1 / np.where(scale == 0, 1, scale.astype(np.float32)))
        nibbles = (np.rint(part * inverse).clip(-8, 7) + 8).astype(np.uint8)
        packed[start : start + step] = nibbles[..., 0::2] | nibbles[..., 1::2] << 4
        scales[start : start + step] = scale[..., 0]
    return packed, scales


def normal_floats(rows: Array) -> tuple[Array, Array]:
    """Quantise each 64 elements in a row to codes of `NF4` times the largest absolute value.

    Args:
        rows: (N, K) with K divisible by 64, float32 or float16.

    Returns:
        Codes (N * K / 2,), the first of two in the upper half of a byte; largest values (N * K / 64,).
    """
    count, width = rows.shape
    packed = np.empty((count, width // 2), np.uint8)
    largest = np.empty((count, width // NF4_BLOCK), rows.dtype)
    codes = np.array(NF4, np.float32)
    bounds = (codes[1:] + codes[:-1]) / 2
    step = max(1, CHUNK_ELEMENTS // max(1, width))
    for start in range(0, count, step):
        part = np.asarray(rows[start : start + step], np.float32).reshape(-1, width // NF4_BLOCK, NF4_BLOCK)
        most = np.abs(part).max(axis=2)
        scaled = part / np.where(most == 0, 1, most)[..., None]
        chosen = np.searchsorted(bounds, scaled).astype(np.uint8).reshape(len(part), width)
        packed[start : start + step] = chosen[:, 0::2] << 4 | chosen[:, 1::2]
        largest[start : start + step] = most
    return packed.reshape(-1), largest.reshape(-1)


class BlockWeights:
    """Rule that gives products 4-bit weights in blocks.

    Args:
        opened: model that gets the new weights.
        shared: names of tables that are also factors of products.
    """

    def __init__(self, opened: Opened, shared: frozenset[str] = frozenset()) -> None:
        self._weights = opened.weights
        self._eight = IntegerWeights(opened)
        self._shared = shared

    def product(self, scope: Scope, given: str, matrix: Matrix, output: str) -> bool:
        if np.prod(matrix.tensor.shape) < SMALLEST:
            return False
        inputs, outputs = matrix.sizes
        packed, scales = self._blocks(matrix.tensor, turned=matrix.turned)
        half = matrix.tensor.data_type == onnx.TensorProto.FLOAT16
        scope.add(
            "MatMulNBits",
            [given, packed, scales],
            [output],
            domain=MICROSOFT,
            K=inputs,
            N=outputs,
            bits=4,
            block_size=BLOCK,
            **({} if half else {"accuracy_level": _ACCURACY_LEVEL}),
        )
        return True

    def lookup(self, scope: Scope, table: Stored, indices: str, output: str) -> bool:
        if table.name not in self._shared or table.shape[1] % BLOCK or np.prod(table.shape) < SMALLEST:
            return self._eight.lookup(scope, table, indices, output)
        packed, scales = self._blocks(table, turned=True)
        shape = f"{table.name}_packed_shape"
        if shape not in self._weights:
            sizes = np.array([table.shape[0], table.shape[1] // 2], np.int64)
            self._weights[shape] = Stored(shape, onnx.TensorProto.INT64, (2,), lambda: sizes)
        (flat,) = scope.once("Reshape", [packed, shape], ["flat"])
        scope.add(
            "GatherBlockQuantized",
            [flat, indices, scales],
            [output],
            domain=MICROSOFT,
            bits=4,
            block_size=BLOCK,
            gather_axis=0,
            quantize_axis=1,
        )
        return True

    def constant(self, scope: Scope, tensor: Stored, kept: tuple[int, ...], output: str) -> bool:
        return self._eight.constant(scope, tensor, kept, output)

    def _blocks(self, tensor: Stored, *, turned: bool) -> tuple[str, str]:
        """Return the names of nibbles and scales of a matrix that is stored as (N, K) if `turned`, else (K, N)."""
        end = "_rows" if turned else ""
        packed, scales = f"{tensor.name}_nibbles{end}", f"{tensor.name}_block_scales{end}"
        if packed not in self._weights:
            count, width = tensor.shape if turned else tensor.shape[::-1]
            blocks = -(-width // BLOCK)
            described = {
                packed: (int(onnx.TensorProto.UINT8), (count, blocks, BLOCK // 2)),
                scales: (tensor.data_type, (count, blocks)),
            }

            def compute() -> tuple[Array, Array]:
                return four_bits(tensor.read() if turned else tensor.read().T)

            self._weights.update({weight.name: weight for weight in Derived.group(described, compute)})
        return packed, scales


class NormalFloatWeights:
    """Rule that gives products weights of 4-bit normal floats. Argument as in `BlockWeights`."""

    def __init__(self, opened: Opened) -> None:
        self._weights = opened.weights
        self._eight = IntegerWeights(opened)

    def product(self, scope: Scope, given: str, matrix: Matrix, output: str) -> bool:
        inputs, outputs = matrix.sizes
        tensor = matrix.tensor
        if inputs % NF4_BLOCK or inputs * outputs < SMALLEST:
            return False
        end = "_rows" if matrix.turned else ""
        packed, largest = f"{tensor.name}_nf4{end}", f"{tensor.name}_nf4_largest{end}"
        if packed not in self._weights:
            described = {
                packed: (int(onnx.TensorProto.UINT8), (inputs * outputs // 2,)),
                largest: (tensor.data_type, (inputs * outputs // NF4_BLOCK,)),
            }
            turned = matrix.turned

            def compute() -> tuple[Array, Array]:
                return normal_floats(tensor.read() if turned else tensor.read().T)

            self._weights.update({weight.name: weight for weight in Derived.group(described, compute)})
        scope.add(
            "MatMulBnb4",
            [given, packed, largest],
            [output],
            domain=MICROSOFT,
            K=inputs,
            N=outputs,
            block_size=NF4_BLOCK,
            quant_type=1,
        )
        return True

    def lookup(self, scope: Scope, table: Stored, indices: str, output: str) -> bool:
        return self._eight.lookup(scope, table, indices, output)

    def constant(self, scope: Scope, tensor: Stored, kept: tuple[int, ...], output: str) -> bool:
        return self._eight.constant(scope, tensor, kept, output)
