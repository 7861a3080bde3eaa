"""BigBird: full attention for short inputs and block-sparse attention for long ones, in one graph.

The original model switches to full attention permanently at the first short input. For longer ones it cuts the input
into blocks, and a trace fixes their number. Here masks select the same keys at every length. Upstream:
https://github.com/huggingface/transformers/issues/20031. Remove this when the model's own attention exports with a free
length on both sides of the threshold.

Time and memory grow with the square of the length.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from transformers.models.big_bird.modeling_big_bird import BigBirdModel, BigBirdSelfAttention

__all__ = ["BlockSparseSelfAttention", "attend_by_masks", "make_traceable"]


def make_traceable(model: torch.nn.Module) -> None:
    """Replace the block-sparse attention of a BigBird in place."""
    attend_by_masks(model, BigBirdModel, {BigBirdSelfAttention: BlockSparseSelfAttention})


def attend_by_masks(
    model: torch.nn.Module,
    switches: type[torch.nn.Module],
    classes: Mapping[type[torch.nn.Module], type[torch.nn.Module]],
) -> None:
    """Replace block-sparse attention by masked attention in place.

    Args:
        model: model to change.
        switches: class of the modules that choose the kind of attention.
        classes: self-attention classes, each with its replacement.
    """
    for switch in [module for module in model.modules() if isinstance(module, switches)]:
        chooser: Any = switch
        if chooser.attention_type == "block_sparse":
            chooser.set_attention_type("original_full")
            for module in switch.modules():
                if type(module) in classes:
                    module.__class__ = classes[type(module)]
                    vars(module).update(block_size=chooser.config.block_size, copies=chooser.config.num_random_blocks)


class BlockSparseSelfAttention(BigBirdSelfAttention):
    """Full attention for short sequences, and block-sparse attention for long ones."""

    block_size: int
    """Number of tokens in a block."""

    copies: int
    """Number of additional times that queries in the middle attend to the first block."""

    def forward(  # type: ignore[override]
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> tuple[torch.Tensor, None]:
        """Compute full attention up to the threshold, and block-sparse attention above it.

        Above the threshold, a query attends to its own and neighbouring blocks and to the first and last block; queries
        in those two attend to everything. In eval mode, the random blocks of training are copies of the first block.

        Args:
            hidden_states: (batch, sequence, hidden).
            attention_mask: (batch, 1, sequence, sequence), added to scores; its last row marks padding.
            kwargs: not used.

        Returns:
            (batch, sequence, hidden); above the threshold, zeros at padding.
        """
        del kwargs
        if attention_mask is None:  # no token is padding
            attention_mask = hidden_states.new_zeros(len(hidden_states), 1, 1, hidden_states.shape[1])
        query, key, value = (
            projection(hidden_states).unflatten(2, (-1, self.attention_head_size)).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        positions = torch.arange(hidden_states.shape[1], device=hidden_states.device)
        sparse = positions[-1] >= (5 + 2 * self.copies) * self.block_size
        block = positions // self.block_size
        at_edge = (block == 0) | (block == block[-1])
        near = (block[:, None] - block[None, :]).abs() <= 1
        allowed = ~sparse | near | at_edge[:, None] | at_edge[None, :]
        copied = sparse & ~at_edge[:, None] & (block == 0)[None, :]

        padding = attention_mask[:, :, -1:, :]
        scores = query @ key.transpose(2, 3) / math.sqrt(self.attention_head_size)
        scores = scores + torch.where(sparse, padding, attention_mask)
        # Attending to a key n times multiplies its weight by n, so add log(n) before the softmax.
        scores = scores + copied.to(scores.dtype) * math.log(1 + self.copies)
        scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
        context = scores.softmax(dim=-1) @ value
        context = context.masked_fill(sparse & (padding.transpose(2, 3) < 0), 0.0)
        return context.transpose(1, 2).flatten(2), None
