"""State that a model keeps between calls, such as dynamic rotary frequencies for the longest text so far."""

from __future__ import annotations

from typing import Any, Final

import torch

__all__ = ["ModelState"]

_COPIED_ELEMENTS: Final = 2**16
"""Size limit of buffers that are copied; no known model changes larger ones, such as tables, in place."""


class ModelState:
    """Copy of the buffers and plain values of a model's modules. Weights are neither copied nor compared."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._modules = [(module, _plain_values(module), _buffers(module)) for module in model.modules()]

    def restore(self) -> None:
        """Restore the state of all modules at the time of the copy."""
        for module, values, buffers in self._modules:
            module.__dict__.update(values)
            for name, tensor in buffers.items():
                setattr(module, name, _copy(tensor))


def _plain_values(module: torch.nn.Module) -> dict[str, Any]:
    kinds = (bool, int, float, torch.Tensor, type(None))
    # Private attributes hold the setup of transformers and torch, such as hooks, which must stay.
    shown = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    return {name: value for name, value in shown.items() if isinstance(value, kinds)}


def _buffers(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: _copy(tensor) for name, tensor in module.named_buffers(recurse=False)}


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.numel() > _COPIED_ELEMENTS else tensor.clone()
