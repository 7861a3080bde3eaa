"""Run a model in float64 throughout: models ask for float32 in places, for a softmax or a norm, to be precise in float16."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["Widened"]


class Widened(TorchFunctionMode):
    """Give float64 wherever a model asks for float32.

    In float32, the smallest float64 number of a mask is minus infinity, and a row that is masked as a whole is not a number.
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
