"""Run a model in float64 throughout. Models cast to float32 for a softmax or a norm, to be precise in float16."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["Widened"]


class Widened(TorchFunctionMode):
    """Replace float32 by float64 in all operators of a model.

    A mask with the smallest float64 number would overflow to minus infinity in float32, and a fully masked row would be NaN.
    """

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        if func is torch.Tensor.float:
            return args[0].double()
        wider = [torch.float64 if value is torch.float32 else value for value in args]
        named = {name: torch.float64 if value is torch.float32 else value for name, value in (kwargs or {}).items()}
        return func(*wider, **named)
