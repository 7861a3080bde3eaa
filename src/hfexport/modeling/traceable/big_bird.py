"""BigBird: full attention up to a number of tokens, block-sparse attention past it, in one graph.

The model itself turns to full attention at the first short input, for good, and cuts longer ones into blocks of a
number that a trace keeps. Here the same keys are chosen by masks, at every length. Upstream:
https://github.com/huggingface/transformers/issues/20031. This can go when the model's own attention exports with a free
length on both sides.

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
    """Change a BigBird with block-sparse attention in place."""
    attend_by_masks(model, BigBirdModel, {BigBirdSelfAttention: BlockSparseSelfAttention})


def attend_by_masks(
    model: torch.nn.Module,
    switches: type[torch.nn.Module],
    classes: Mapping[type[torch.nn.Module], type[torch.nn.Module]],
) -> None:
    """Replace block-sparse attention in place.

    Args:
        model: to change.
        switches: the class of its modules that choose the kind of attention.
        classes: of self-attention, each with the one to take instead.
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
    """Full attention for short sequences, attention to blocks for long ones."""

    block_size: int
    """Tokens in a block."""

    copies: int
    """How often more than once the first block is seen from the middle."""

    def forward(  # type: ignore[override]
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> tuple[torch.Tensor, None]:
        """Full attention up to the threshold; past it, attention to blocks.

        Past it a query sees the blocks beside its own and the first and the last; queries in these two see all. The
        random blocks of training are, in a model that is not trained, as many copies of the first block.

        Args:
            hidden_states: (batch, sequence, hidden).
            attention_mask: (batch, 1, sequence, sequence), added to scores; its last row tells which tokens are padding.
            kwargs: not used.

        Returns:
            (batch, sequence, hidden); past the threshold, zeros where padded.
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
        # A key that is seen n times weighs n times as much: log(n) more before the softmax.
        scores = scores + copied.to(scores.dtype) * math.log(1 + self.copies)
        scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
        context = scores.softmax(dim=-1) @ value
        context = context.masked_fill(sparse & (padding.transpose(2, 3) < 0), 0.0)
        return context.transpose(1, 2).flatten(2), None
