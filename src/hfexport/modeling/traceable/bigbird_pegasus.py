"""BigBird-Pegasus, whose encoder uses the attention of BigBird; see `big_bird`."""

from __future__ import annotations

from typing import Any

import torch
from transformers.models.bigbird_pegasus.modeling_bigbird_pegasus import (
    BigBirdPegasusEncoder,
    BigBirdPegasusSelfAttention,
)

from hfexport.modeling.traceable.big_bird import BlockSparseSelfAttention, attend_by_masks

__all__ = ["make_traceable"]


def make_traceable(model: torch.nn.Module) -> None:
    """Replace the encoder's block-sparse attention of a BigBird-Pegasus in place."""
    attend_by_masks(model, BigBirdPegasusEncoder, {BigBirdPegasusSelfAttention: _BlockSparseSelfAttention})


class _BlockSparseSelfAttention(BigBirdPegasusSelfAttention):
    block_size: int
    copies: int

    def forward(  # type: ignore[override]
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> tuple[torch.Tensor, None]:
        """Compute BigBird's attention. This class has all attributes that it uses, so only the types differ."""
        return BlockSparseSelfAttention.forward(self, hidden_states, attention_mask, **kwargs)  # type: ignore[arg-type]
