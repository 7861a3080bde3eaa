"""CANINE: compute the first encoder's attention within blocks of characters as one operation over all blocks.

The class in transformers loops over the blocks in Python, and a tracer fixes the number of iterations:
https://github.com/huggingface/transformers/blob/main/src/transformers/models/canine/modeling_canine.py. Remove this
when it uses one operation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import pad
from transformers.models.canine.modeling_canine import CanineAttention, CanineModel

__all__ = ["make_traceable"]


def make_traceable(model: torch.nn.Module) -> None:
    """Replace the local attention of a CANINE in place."""
    for module in model.modules():
        if type(module) is CanineAttention and module.local and _has_plain_blocks(module):
            module.__class__ = _BlockAttention
        elif type(module) is CanineModel:
            module.__class__ = _Model


def _has_plain_blocks(module: Any) -> bool:
    """Return whether every position attends to exactly its own block, as in every model of transformers."""
    width = module.attend_from_chunk_width
    sizes = (module.attend_from_chunk_stride, module.attend_to_chunk_width, module.attend_to_chunk_stride)
    return not (module.always_attend_to_first_position or module.first_position_attends_to_all) and all(
        size == width for size in sizes
    )


class _Model(CanineModel):
    def _downsample_attention_mask(self, char_attention_mask: torch.Tensor, downsampling_rate: int) -> torch.Tensor:
        """Mark the molecules with at least one visible character: (batch, characters) to (batch, molecules), as floats.

        The class in transformers uses `MaxPool1d`, for which `torch.export` fixes the length.
        """
        whole = char_attention_mask.shape[1] // downsampling_rate * downsampling_rate
        seen: torch.Tensor = char_attention_mask[:, :whole].float().unflatten(1, (-1, downsampling_rate)).amax(dim=-1)
        return seen

    def _repeat_molecules(self, molecules: torch.Tensor, char_seq_length: int) -> torch.Tensor:
        """Give each character its molecule: (batch, molecules, hidden) to (batch, characters, hidden).

        The first molecule stands for the whole text. The last one also serves the characters beyond it. The class in
        transformers repeats by a count that `torch.export` fixes.
        """
        characters = torch.arange(char_seq_length, device=molecules.device)
        places = torch.clamp(characters // self.config.downsampling_rate + 1, max=molecules.shape[1] - 1)
        return molecules.index_select(1, places)


class _BlockAttention(CanineAttention):
    def forward(  # type: ignore[override]
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor,
        output_attentions: bool | None = False,
    ) -> tuple[torch.Tensor, ...]:
        """Attend within blocks.

        Args:
            hidden_states: (batch, sequence, hidden).
            attention_mask: (batch, sequence, sequence), 1 where a position is visible; equal rows in each batch entry.
            output_attentions: also return the weights of the first block, as the class in transformers does.
        """
        width, length = self.attend_from_chunk_width, hidden_states.shape[1]
        missing = -length % width
        blocks = pad(hidden_states, (0, 0, 0, missing)).unflatten(1, (-1, width))
        seen = pad(attention_mask[:, 0], (0, missing)).unflatten(1, (-1, width))
        exists = pad(torch.ones_like(attention_mask[:, 0]), (0, missing)).unflatten(1, (-1, width))
        attended, weights = self._attend(blocks, seen, exists)
        outputs = (self.output(attended.flatten(1, 2)[:, :length], hidden_states),)
        return (*outputs, weights[:, 0, :, :length, :length]) if output_attentions else outputs

    def _attend(
        self, blocks: torch.Tensor, seen: torch.Tensor, exists: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend within `blocks` (batch, blocks, width, hidden) to `seen` positions (batch, blocks, width)."""
        own = self.self
        heads = (own.num_attention_heads, own.attention_head_size)
        query, key, value = (
            layer(blocks).unflatten(-1, heads).transpose(2, 3) for layer in (own.query, own.key, own.value)
        )
        scores = query @ key.transpose(-1, -2) / own.attention_head_size**0.5
        lowest = torch.finfo(scores.dtype).min
        scores = scores + ((1.0 - seen.float()) * lowest).to(scores.dtype)[:, :, None, None]
        # Positions that pad the last block get no weight, even if all its other positions are hidden.
        scores = scores.masked_fill(exists[:, :, None, None] == 0, -torch.inf)
        weights = scores.softmax(dim=-1)
        return (weights @ value).transpose(2, 3).flatten(-2), weights
