"""Template of an ONNX file: its graph, and for each weight the name of the model's tensor that fills it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
import onnx
import torch

from hfexport.backends.onnx.writer import Weight

__all__ = [
    "Skeleton",
    "StoredWeight",
    "Tensors",
    "decode",
    "encode",
    "fill",
    "named_tensors",
    "refuse_misfit",
    "tensor_bytes",
    "tied_names",
    "with_inputs",
]

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


class StoredWeight(msgspec.Struct, frozen=True):
    """An initializer, and the origin of its data.

    Attributes:
        name: name in the graph.
        data_type: data type of `onnx.TensorProto`.
        shape: shape in the graph.
        branch: index of the graph in the file.
        tensor: name of the parameter or buffer of that graph's module; empty for a constant.
        constant: data of a tensor that the model creates while it is captured, little-endian and row-major.
        transposed: the graph expects the transpose of the tensor (a matrix).
    """

    name: str
    data_type: int
    shape: tuple[int, ...]
    branch: int
    tensor: str
    constant: bytes = b""
    transposed: bool = False


class Skeleton(msgspec.Struct, frozen=True):
    """An ONNX model without weights, and the weights that it needs.

    Attributes:
        graph: serialised `onnx.ModelProto` without initializers and metadata.
        nodes: number of nodes of all its graphs.
        operators: number of nodes by operator, also those of inner graphs.
        weights: weights, in the order in which they are written.
    """

    graph: bytes
    nodes: int
    operators: dict[str, int]
    weights: tuple[StoredWeight, ...]


def encode(skeleton: Skeleton) -> bytes:
    """Serialise a template."""
    return msgspec.msgpack.encode(skeleton)


def decode(content: bytes) -> Skeleton:
    """Read a template.

    Raises:
        ValueError: the content is not a template.
    """
    skeleton = msgspec.msgpack.decode(content, type=Skeleton)  # its errors are ValueErrors
    try:
        onnx.checker.check_model(with_inputs(skeleton), full_check=False)
    except Exception as error:  # protobuf and the checker raise classes of their own
        raise ValueError("its graph is not valid") from error
    return skeleton


def refuse_misfit(skeleton: Skeleton, tensors: Sequence[Tensors]) -> None:
    """Check that every weight has a tensor of its size.

    Raises:
        ValueError: a weight has none.
    """
    for weight in skeleton.weights:
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


def fill(skeleton: Skeleton, tensors: Sequence[Tensors]) -> list[Weight]:
    """Return the weights of a template with their data, which stays mapped.

    Args:
        skeleton: template that fits the model.
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
        for weight in skeleton.weights
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


def tied_names(model: torch.nn.Module) -> list[list[str]]:
    """Return groups of names of parameters that share memory, sorted."""
    groups: dict[int, list[str]] = {}
    for name, tensor in model.named_parameters(remove_duplicate=False):
        if tensor.numel() > 1:
            groups.setdefault(tensor.data_ptr(), []).append(name)
    return sorted(sorted(names) for names in groups.values() if len(names) > 1)


def with_inputs(skeleton: Skeleton) -> onnx.ModelProto:
    """Return the model with its weights declared as inputs, so that it can be checked without them."""
    model: onnx.ModelProto = onnx.ModelProto.FromString(skeleton.graph)
    model.graph.input.extend(
        onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.shape) for weight in skeleton.weights
    )
    return model
