"""NLLB-MoE: every expert computes all tokens, and a mask selects its results.

The original module loops over those experts that a token was routed to, and gathers their tokens; both numbers depend
on data, so `torch.export` refuses them and a trace fixes them. Remove this when transformers routes these experts with
the functions of `transformers.integrations.moe`, as it does for other models.
"""

from __future__ import annotations

import torch
from transformers.models.nllb_moe.modeling_nllb_moe import NllbMoeExperts

__all__ = ["make_traceable"]

_MASK_VALUES = 2
"""The router's mask holds 0 and 1, and the original module takes its values as numbers of experts."""


def make_traceable(model: torch.nn.Module) -> None:
    """Replace the experts of an NLLB-MoE in place."""
    for module in model.modules():
        if type(module) is NllbMoeExperts:
            module.__class__ = _Experts


class _Experts(NllbMoeExperts):
    def forward(
        self, hidden_states: torch.Tensor, router_mask: torch.Tensor, router_probs: torch.Tensor
    ) -> torch.Tensor:
        """Add the results of the experts, as the original module does.

        Args:
            hidden_states: (tokens, hidden).
            router_mask: (tokens, experts), 0 or 1.
            router_probs: (tokens, experts).
        """
        kept = 1 - self.moe_token_dropout if self.moe_token_dropout > 0 else 1.0
        result = torch.zeros_like(hidden_states)
        for number in range(min(_MASK_VALUES, self.num_experts)):
            shares = torch.where(router_mask == number, router_probs, 0.0).sum(dim=1, keepdim=True)
            result = result + (self[f"expert_{number}"](hidden_states) * shares * kept).to(hidden_states.dtype)
        return result
