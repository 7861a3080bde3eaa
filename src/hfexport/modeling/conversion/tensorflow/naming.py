"""From the name of a TensorFlow weight to the name and the layout of the PyTorch parameter that it is.

The conventions are those by which transformers 4.44 gave TensorFlow classes the weights of PyTorch ones
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
    """The parameter's name, as transformers 4.44 has it.

    Levels are divided by `/`; `_._` divides the level of a list from that of its item; of `mlm___cls` only `cls` counts.

    Args:
        name: without the model's own, such as `bert/encoder/layer_._0/output/LayerNorm/gamma:0`.
    """
    plain = _RENAMED_LEVEL.sub(r"\1", name.removesuffix(":0")).replace("_._", "/")
    *levels, last = [level for level in plain.split("/") if level]
    return ".".join([*levels, _LAST.get(last, last)])


def axes_order(name: str, rank: int) -> tuple[int, ...] | None:
    """The order in which PyTorch has the axes of a kernel; `None` if it has them as they are.

    A dense kernel is (in, out), of PyTorch (out, in); one of a convolution (…, in, out), of PyTorch (out, in, …); a
    depthwise one (…, in, multiplier), of PyTorch (in, multiplier, …).
    """
    space = tuple(range(rank - 2))
    match name.removesuffix(":0").rpartition("/")[2]:
        case "kernel" | "pointwise_kernel" if rank >= 2:
            return (rank - 1, rank - 2, *space)
        case "depthwise_kernel" if rank >= 2:
            return (rank - 2, rank - 1, *space)
        case _:
            return None
