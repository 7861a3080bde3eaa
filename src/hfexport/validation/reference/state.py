"""What a model remembers of its calls, such as the frequencies of a dynamic rotary embedding for the longest text so far."""

from __future__ import annotations

from typing import Any, Final

import torch

__all__ = ["ModelState"]

_COPIED_ELEMENTS: Final = 2**16
"""Buffers up to this size are copied; larger ones, such as tables, are not changed in place by any known model."""


class ModelState:
    """The buffers and plain values of a model's modules, as they are now. Weights are neither copied nor looked at."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._modules = [(module, _plain_values(module), _buffers(module)) for module in model.modules()]

    def restore(self) -> None:
        """Give all modules the state that they had when this was made."""
        for module, values, buffers in self._modules:
            module.__dict__.update(values)
            for name, tensor in buffers.items():
                setattr(module, name, _copy(tensor))


def _plain_values(module: torch.nn.Module) -> dict[str, Any]:
    kinds = (bool, int, float, torch.Tensor, type(None))
    # Private ones are how transformers and torch know what they set up, such as hooks that stay.
    shown = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    return {name: value for name, value in shown.items() if isinstance(value, kinds)}


def _buffers(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: _copy(tensor) for name, tensor in module.named_buffers(recurse=False)}


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.numel() > _COPIED_ELEMENTS else tensor.clone()
