"""8-bit variants: weights with a scale for each output, activations quantised while the graph runs.

The operators are those of ONNX Runtime's dynamic quantisation (`onnxruntime.quantization.quantize_dynamic`), which its
sessions fuse: `DynamicQuantizeLinear`, `MatMulInteger`, and a product with both scales.
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
Unlike there, tables of embeddings have a scale for each row, kernels of convolutions stay a constant that a session
computes once (its integer convolution takes no signed weights), and weights are read one at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hfexport.backends.onnx.variants.graph import Derived, Opened, Stored
from hfexport.backends.onnx.variants.rewrite import Matrix, Scope

__all__ = ["SMALLEST", "IntegerWeights", "quantised_rows"]

Array = NDArray[Any]

SMALLEST = 1024
"""Number of elements below which a weight is not quantised: it takes little space, and quantising it may cost accuracy."""

CHUNK_ELEMENTS = 2**24
"""Number of elements that are quantised at a time, so that temporary arrays stay small."""

_OFFSET = 128
"""Zero point of unsigned weights."""


def quantised_rows(weights: Array, *, signed: bool) -> tuple[Array, Array]:
    """Quantise a matrix to 8 bits, symmetrically, with one scale for each row.

    Args:
        weights: (rows, columns), float32 or float16.
        signed: int8; otherwise uint8 with zero point 128.

    Returns:
        The integers (rows, columns), and the scales (rows,) in float32, so that `weights ≈ integers * scale`.
    """
    rows, columns = weights.shape
    integers = np.empty((rows, columns), np.int8 if signed else np.uint8)
    scales = np.empty(rows, np.float32)
    step = max(1, CHUNK_ELEMENTS // max(1, columns))
    for start in range(0, rows, step):
        part = np.asarray(weights[start : start + step], np.float32)
        scale = np.abs(part).max(axis=1, initial=0.0) / 127
        scale[scale == 0] = 1
        whole = np.rint(part / scale[:, None])
        integers[start : start + step] = whole if signed else whole + _OFFSET
        scales[start : start + step] = scale
    return integers, scales


class IntegerWeights:
    """Rule that gives products 8-bit weights and activations, and tables and kernels 8-bit weights.

    Args:
        opened: model that gets the new weights.
        signed: int8 weights; otherwise uint8.
    """

    def __init__(self, opened: Opened, *, signed: bool = True) -> None:
        self._weights = opened.weights
        self._signed = signed
        self._type = onnx.TensorProto.INT8 if signed else onnx.TensorProto.UINT8

    def product(self, scope: Scope, given: str, matrix: Matrix, output: str) -> bool:
        tensor = matrix.tensor
        if np.prod(tensor.shape) < SMALLEST or tensor.data_type != onnx.TensorProto.FLOAT:
            return False
        integers, scales = self._quantised(tensor, 0 if matrix.turned else 1)
        if matrix.turned:
            (integers,) = scope.once("Transpose", [integers], ["turned"], perm=[1, 0])
        whole, scale, zero = scope.once("DynamicQuantizeLinear", [given], ["integers", "scale", "zero_point"])
        operands = [whole, integers, zero]
        if not self._signed:
            operands.append(self._zero_point())
        scope.add("MatMulInteger", operands, [f"{output}_integers"])
        scope.add("Cast", [f"{output}_integers"], [f"{output}_cast"], to=onnx.TensorProto.FLOAT)
        scope.add("Mul", [scale, scales], [f"{output}_scales"])
        scope.add("Mul", [f"{output}_cast", f"{output}_scales"], [output])
        return True

    def lookup(self, scope: Scope, table: Stored, indices: str, output: str) -> bool:
        if np.prod(table.shape) < SMALLEST:
            return False
        integers, scales = self._quantised(table, 0)
        column = f"{scales}_column"
        if column not in self._weights:
            self._weights[column] = self._reshaped(scales, column, (table.shape[0], 1), table.data_type)
        scope.add("Gather", [integers, indices], [f"{output}_integers"])
        scope.add("Gather", [column, indices], [f"{output}_scales"])
        whole = self._centred(scope, f"{output}_integers", output, table.data_type)
        scope.add("Mul", [whole, f"{output}_scales"], [output])
        return True

    def constant(self, scope: Scope, tensor: Stored, kept: tuple[int, ...], output: str) -> bool:
        if np.prod(tensor.shape) < SMALLEST:
            return False
        reduced = tuple(axis for axis in range(len(tensor.shape)) if axis not in kept)
        integers, scales = f"{tensor.name}_integers", f"{tensor.name}_scales"
        if integers not in self._weights:
            shape = tuple(1 if axis in reduced else size for axis, size in enumerate(tensor.shape))
            described = {integers: (int(self._type), tensor.shape), scales: (tensor.data_type, shape)}
            signed = self._signed

            def compute() -> tuple[Array, Array]:
                weights = np.asarray(tensor.read(), np.float32)
                scale = np.abs(weights).max(axis=reduced, keepdims=True) / 127
                scale[scale == 0] = 1
                whole = np.rint(weights / scale) + (0 if signed else _OFFSET)
                return whole.astype(np.int8 if signed else np.uint8), scale.astype(_numpy(tensor.data_type))

            self._weights.update({weight.name: weight for weight in Derived.group(described, compute)})
        whole = self._centred(scope, integers, output, tensor.data_type)
        scope.add("Mul", [whole, scales], [output])
        return True

    def _quantised(self, tensor: Stored, axis: int) -> tuple[str, str]:
        """Return the names of the integers and scales of a matrix with one scale for each index of `axis`."""
        integers, scales = f"{tensor.name}_integers_{axis}", f"{tensor.name}_scales_{axis}"
        if integers not in self._weights:
            described = {
                integers: (int(self._type), tensor.shape),
                scales: (int(onnx.TensorProto.FLOAT), (tensor.shape[axis],)),
            }
            signed = self._signed

            def compute() -> tuple[Array, Array]:
                weights = tensor.read()
                whole, scale = quantised_rows(weights if axis == 0 else weights.T, signed=signed)
                return (whole if axis == 0 else whole.T), scale

            self._weights.update({weight.name: weight for weight in Derived.group(described, compute)})
        return integers, scales

    def _reshaped(self, scales: str, name: str, shape: tuple[int, ...], data_type: int) -> Derived:
        """Return the scales as another initializer of another shape and dtype."""
        source = self._weights[scales]
        assert isinstance(source, Derived)

        def compute() -> tuple[Array]:
            return (source.parts.get(source.index).reshape(shape).astype(_numpy(data_type)),)

        return Derived.group({name: (data_type, shape)}, compute)[0]

    def _centred(self, scope: Scope, integers: str, output: str, data_type: int) -> str:
        """Convert integers to floats around zero."""
        scope.add("Cast", [integers], [f"{output}_cast"], to=data_type)
        if self._signed:
            return f"{output}_cast"
        offset = f"hfexport_offset_{data_type}"
        self._add_constant(offset, np.array(_OFFSET, _numpy(data_type)))
        scope.add("Sub", [f"{output}_cast", offset], [f"{output}_centred"])
        return f"{output}_centred"

    def _zero_point(self) -> str:
        self._add_constant("hfexport_zero_point", np.array(_OFFSET, np.uint8))
        return "hfexport_zero_point"

    def _add_constant(self, name: str, value: Array) -> None:
        if name not in self._weights:
            data_type = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
            self._weights[name] = Stored(name, data_type, value.shape, lambda: value)


def _numpy(data_type: int) -> np.dtype[Any]:
    return onnx.helper.tensor_dtype_to_np_dtype(data_type)
