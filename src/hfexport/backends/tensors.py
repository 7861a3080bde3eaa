"""Fill a template with the tensors of a loaded model, which stay mapped from the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
import torch

from hfexport.backends.origins import StoredWeight

__all__ = ["Tensors", "Weight", "fill", "named_tensors", "refuse_misfit", "tensor_bytes"]

Tensors = Mapping[str, torch.Tensor]
"""Parameters and buffers of one graph's module, by name."""

_TORCH_DTYPES: Final[Mapping[int, torch.dtype]] = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.BOOL: torch.bool,
}


@dataclass(frozen=True)
class Weight:
    """An initializer and the location of its data.

    Attributes:
        name: name in the graph.
        data_type: data type of `onnx.TensorProto`.
        shape: shape in the graph.
        source: tensor with the data; it is mapped, so it takes no memory until it is read.
        dtype: torch's name for `data_type`.
        transposed: the graph expects the transpose of the source (a matrix).
    """

    name: str
    data_type: int
    shape: tuple[int, ...]
    source: torch.Tensor
    dtype: torch.dtype
    transposed: bool = False

    @property
    def size_bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def data(self) -> memoryview:
        """Return the data in the graph's layout: little-endian, row-major."""
        tensor = self.source.detach().to(self.dtype)
        tensor = (tensor.t() if self.transposed else tensor).contiguous()
        return tensor.reshape(-1).view(torch.uint8).numpy().data


def refuse_misfit(weights: Sequence[StoredWeight], tensors: Sequence[Tensors]) -> None:
    """Check that every weight has a tensor of its size.

    Raises:
        ValueError: a weight has none.
    """
    for weight in weights:
        size = int(np.prod(weight.shape, dtype=np.int64))
        if weight.data_type not in _TORCH_DTYPES or not 0 <= weight.branch < len(tensors):
            raise ValueError(f"it describes no weight by {weight.name}")
        dtype = _TORCH_DTYPES[weight.data_type]
        if not weight.tensor:
            fits = len(weight.constant) == size * dtype.itemsize
        else:
            found = tensors[weight.branch].get(weight.tensor)
            fits = found is not None and found.numel() == size and (not weight.transposed or found.dim() == 2)
        if not fits:
            raise ValueError(f"the model has no tensor for {weight.name}")


def fill(weights: Sequence[StoredWeight], tensors: Sequence[Tensors]) -> list[Weight]:
    """Return the weights of a template with their data, which stays mapped.

    Args:
        weights: weights of a template that fits the model.
        tensors: tensors of each graph in the file.
    """
    return [
        Weight(
            weight.name,
            weight.data_type,
            weight.shape,
            tensors[weight.branch][weight.tensor] if weight.tensor else _constant(weight),
            _TORCH_DTYPES[weight.data_type],
            weight.transposed,
        )
        for weight in weights
    ]


def _constant(weight: StoredWeight) -> torch.Tensor:
    data = torch.frombuffer(bytearray(weight.constant), dtype=_TORCH_DTYPES[weight.data_type])
    return data.reshape(tuple(reversed(weight.shape)) if weight.transposed else weight.shape)


def tensor_bytes(tensor: torch.Tensor, data_type: int) -> bytes:
    """Return the data of `tensor` in a data type of `onnx.TensorProto`, little-endian and row-major."""
    plain = tensor.detach().to(_TORCH_DTYPES[data_type]).contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy().tobytes()


def named_tensors(model: torch.nn.Module) -> Tensors:
    """Return the parameters and buffers of `model` by name; tied ones are listed under each of their names."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
