"""BigBird-Pegasus, whose encoder attends as BigBird does; see `big_bird`."""

from __future__ import annotations

from typing import Any

import torch
from transformers.models.bigbird_pegasus.modeling_bigbird_pegasus import (
    BigBirdPegasusEncoder,
    BigBirdPegasusSelfAttention,
)

from hfexport.backends.traceable.big_bird import BlockSparseSelfAttention

__all__ = ["make_traceable"]


def make_traceable(model: torch.nn.Module) -> None:
    """Change a BigBird-Pegasus whose encoder has block-sparse attention in place."""
    for encoder in [module for module in model.modules() if isinstance(module, BigBirdPegasusEncoder)]:
        if encoder.attention_type == "block_sparse":
            encoder.set_attention_type("original_full")
            for module in encoder.modules():
                if type(module) is BigBirdPegasusSelfAttention:
                    module.__class__ = _BlockSparseSelfAttention
                    vars(module).update(block_size=encoder.config.block_size, copies=encoder.config.num_random_blocks)


class _BlockSparseSelfAttention(BigBirdPegasusSelfAttention):
    block_size: int
    copies: int

    def forward(  # type: ignore[override]
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> tuple[torch.Tensor, None]:
        """As BigBird's, which uses nothing that this class does not have as well."""
        return BlockSparseSelfAttention.forward(self, hidden_states, attention_mask, **kwargs)  # type: ignore[arg-type]
