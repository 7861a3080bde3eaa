"""Convert the name of a TensorFlow weight to the name and layout of the PyTorch parameter.

The conventions are those of transformers 4.44, which converted weights between PyTorch and TensorFlow classes
(`convert_tf_weight_name_to_pt_weight_name` in modeling_tf_pytorch_utils.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["axes_order", "pytorch_name"]

_LAST: Final[Mapping[str, str]] = MappingProxyType(
    {
        **{"kernel": "weight", "embeddings": "weight", "gamma": "weight", "beta": "bias"},
        **{"moving_mean": "running_mean", "moving_variance": "running_var"},
        **{"depthwise_kernel": "depthwise.weight", "pointwise_kernel": "pointwise.weight"},
    }
)
_RENAMED_LEVEL: Final = re.compile(r"(?<![^/])[^/]*___([^/]*)(?=/)")


def pytorch_name(name: str) -> str:
    """Return the parameter's name in transformers 4.44.

    `/` separates levels, and `_._` separates a list from the index of its item. In `mlm___cls` only `cls` counts.

    Args:
        name: name without the model's own prefix, such as `bert/encoder/layer_._0/output/LayerNorm/gamma:0`.
    """
    plain = _RENAMED_LEVEL.sub(r"\1", name.removesuffix(":0")).replace("_._", "/")
    *levels, last = [level for level in plain.split("/") if level]
    return ".".join([*levels, _LAST.get(last, last)])


def axes_order(name: str, rank: int) -> tuple[int, ...] | None:
    """Return the order of a kernel's axes in PyTorch; `None` if it is the same.

    | kernel | TensorFlow | PyTorch |
    |---|---|---|
    | dense | (in, out) | (out, in) |
    | convolution | (…, in, out) | (out, in, …) |
    | depthwise convolution | (…, in, multiplier) | (in, multiplier, …) |
    """
    space = tuple(range(rank - 2))
    match name.removesuffix(":0").rpartition("/")[2]:
        case "kernel" | "pointwise_kernel" if rank >= 2:
            return (rank - 1, rank - 2, *space)
        case "depthwise_kernel" if rank >= 2:
            return (rank - 2, rank - 1, *space)
        case _:
            return None
