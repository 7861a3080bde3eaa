"""Switch Transformers: every expert computes all tokens, and a mask selects its results.

The original experts loop over those that a token was routed to and gather their tokens; both numbers depend on data. The
original router converts its classifier in each call, which `torch.export` refuses; `load_model` has converted it.
Remove this when transformers routes these experts with the functions of `transformers.integrations.moe`.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from transformers.models.switch_transformers.modeling_switch_transformers import (
    SwitchTransformersExperts,
    SwitchTransformersTop1Router,
)

__all__ = ["make_traceable"]


def make_traceable(model: torch.nn.Module) -> None:
    """Replace the experts and the routers' classifiers of a Switch Transformer in place."""
    for module in model.modules():
        if type(module) is SwitchTransformersExperts:
            module.__class__ = _Experts
        elif type(module) is SwitchTransformersTop1Router:
            module.classifier.__class__ = _Converted


class _Converted(torch.nn.Linear):
    def to(self, *_: Any, **__: Any) -> Self:
        """Return the classifier, which has its dtype already."""
        return self


class _Experts(SwitchTransformersExperts):
    def forward(
        self, hidden_states: torch.Tensor, selected_experts: torch.Tensor, routing_weights: torch.Tensor
    ) -> torch.Tensor:
        """Add the results of the experts, as the original module does.

        Args:
            hidden_states: (tokens, hidden).
            selected_experts: (tokens, 1, experts), 1 for the expert of a token, all 0 if it exceeds the capacity.
            routing_weights: (tokens, 1).
        """
        result = torch.zeros_like(hidden_states)
        for number in range(self.num_experts):
            computed = self[f"expert_{number}"](hidden_states) * routing_weights
            selected = selected_experts[:, :, number] != 0
            result = result + torch.where(selected, computed, 0.0).to(hidden_states.dtype)
        return result
