"""Models that forecast a distribution: its parameters, without the loss of the future that the decoder is given.

A distribution of `torch` looks at its parameters' values to refuse bad ones, which `torch.export` cannot follow:
https://github.com/pytorch/pytorch/issues/135061. This can go when the models compute no loss unless asked for one.
"""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["make_traceable"]


def make_traceable(model: torch.nn.Module) -> None:
    """Change a model in place: no distribution is made, and what is given as the loss means nothing."""
    if hasattr(model, "output_distribution"):
        inert: Any = model
        inert.output_distribution = _no_distribution
        inert.loss = _no_loss


def _no_distribution(*parameters: Any, **scaled_by: Any) -> None:
    del parameters, scaled_by


def _no_loss(distribution: None, target: torch.Tensor) -> torch.Tensor:
    del distribution
    return target.new_zeros(())
