"""Template of an ONNX file: its graph, and for each weight the name of the model's tensor that fills it. Torch-free."""

from __future__ import annotations

import msgspec
import onnx

from hfexport.backends.origins import StoredWeight

__all__ = ["Skeleton", "decode", "encode", "with_inputs"]


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


def with_inputs(skeleton: Skeleton) -> onnx.ModelProto:
    """Return the model with its weights declared as inputs, so that it can be checked without them."""
    model: onnx.ModelProto = onnx.ModelProto.FromString(skeleton.graph)
    model.graph.input.extend(
        onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.shape) for weight in skeleton.weights
    )
    return model
