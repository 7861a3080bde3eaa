"""Longformer: attention to a window and to global tokens with masks, for any length and any number of global tokens.

The original model cuts its input into chunks of the window size, and gathers global tokens, whose number depends on
data. A trace fixes both numbers and is silently wrong at other lengths; `torch.export` refuses the model. Here masks
select the same keys. Upstream: https://github.com/huggingface/optimum/issues/776. Remove this when the model's own
attention exports with a free length.

Time and memory grow with the square of the length.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers.models.longformer.modeling_longformer import (
    LongformerBaseModelOutput,
    LongformerEncoder,
    LongformerModel,
    LongformerSelfAttention,
)

__all__ = ["make_traceable", "masked_attention"]


def make_traceable(model: torch.nn.Module) -> None:
    """Replace a Longformer's attention by masked attention in place, and disable padding to the window size."""
    replacements = {
        LongformerModel: _UnpaddedModel,
        LongformerEncoder: _Encoder,
        LongformerSelfAttention: _MaskedSelfAttention,
    }
    for module in model.modules():
        if type(module) in replacements:
            module.__class__ = replacements[type(module)]


class _UnpaddedModel(LongformerModel):
    def _pad_to_window_size(self, **kwargs: Any) -> tuple[Any, ...]:  # type: ignore[override]
        names = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds")
        return (0, *(kwargs[name] for name in names))


class _Encoder(LongformerEncoder):
    def forward(  # type: ignore[override]
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor, **kwargs: Any
    ) -> LongformerBaseModelOutput:
        """Run all layers without checking whether any token is global, which the masked attention need not know.

        Args:
            hidden_states: (batch, sequence, hidden).
            attention_mask: (batch, sequence); negative at padding, positive at global tokens, else 0.
            kwargs: not used.
        """
        del kwargs
        for layer in self.layer:
            (hidden_states,) = layer(
                hidden_states, is_index_masked=attention_mask < 0, is_index_global_attn=attention_mask > 0
            )
        return LongformerBaseModelOutput(last_hidden_state=hidden_states)


class _MaskedSelfAttention(LongformerSelfAttention):
    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: None = None,
        is_index_masked: torch.Tensor | None = None,
        is_index_global_attn: torch.Tensor | None = None,
        is_global_attn: None = None,
        output_attentions: bool = False,
    ) -> tuple[torch.Tensor]:
        """Attend to the window and the global tokens; global tokens attend to all, with projections of their own.

        Args:
            hidden_states: (batch, sequence, hidden).
            attention_mask: not used.
            is_index_masked: (batch, sequence), true at padding.
            is_index_global_attn: (batch, sequence), true at global tokens; never true at padding.
            is_global_attn: not used.
            output_attentions: not used.

        Returns:
            (batch, sequence, hidden); zeros at padding.
        """
        del attention_mask, is_global_attn, output_attentions
        assert is_index_masked is not None
        assert is_index_global_attn is not None
        return (masked_attention(self, hidden_states, is_index_masked, is_index_global_attn),)


def masked_attention(
    attention: Any, hidden_states: torch.Tensor, is_masked: torch.Tensor, is_global: torch.Tensor | None
) -> torch.Tensor:
    """Attend to a window and to global tokens by the projections of a self-attention module.

    Args:
        attention: self-attention of Longformer, or of LED, which has the same attributes.
        hidden_states: (batch, sequence, hidden).
        is_masked: (batch, sequence), true at padding.
        is_global: (batch, sequence), true at global tokens; never true at padding. `None` if there are none.

    Returns:
        (batch, sequence, hidden); zeros at padding.
    """

    def heads(projection: torch.nn.Module) -> torch.Tensor:
        projected: torch.Tensor = projection(hidden_states)
        return projected.view(*projected.shape[:2], attention.num_heads, attention.head_dim).transpose(1, 2)

    scale = math.sqrt(attention.head_dim)
    positions = torch.arange(hidden_states.shape[1], device=hidden_states.device)
    near = (positions[:, None] - positions[None, :]).abs() <= attention.one_sided_attn_window_size
    unmasked = ~is_masked[:, None, None, :]
    allowed = unmasked & near if is_global is None else unmasked & near | is_global[:, None, None, :]
    context = _attend(heads(attention.query) / scale, heads(attention.key), heads(attention.value), allowed)
    context = context.masked_fill(is_masked[:, None, :, None], 0.0)
    if is_global is not None:
        everywhere = _attend(
            heads(attention.query_global) / scale,
            heads(attention.key_global),
            heads(attention.value_global),
            unmasked,
        )
        context = torch.where(is_global[:, None, :, None], everywhere, context)
    return context.transpose(1, 2).flatten(2)


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    scores = (query @ key.transpose(2, 3)).masked_fill(~allowed, torch.finfo(query.dtype).min)
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    context: torch.Tensor = weights @ value
    return context
