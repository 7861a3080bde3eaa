"""Time series models: return the distribution's parameters, and skip the loss on the decoder's future values.

A distribution of `torch` checks the values of its parameters, which `torch.export` cannot follow:
https://github.com/pytorch/pytorch/issues/135061. Remove this when the models compute the loss only on request.
"""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["make_traceable"]


def make_traceable(model: torch.nn.Module) -> None:
    """Change a model in place so that it creates no distribution; the loss that it returns is meaningless."""
    if hasattr(model, "output_distribution"):
        inert: Any = model
        inert.output_distribution = _no_distribution
        inert.loss = _no_loss


def _no_distribution(*parameters: Any, **scaled_by: Any) -> None:
    del parameters, scaled_by


def _no_loss(distribution: None, target: torch.Tensor) -> torch.Tensor:
    del distribution
    return target.new_zeros(())
