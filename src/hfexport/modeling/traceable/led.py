"""LED: attention of its encoder with masks, for any length, as that of Longformer, of which it is a copy.

The original encoder checks whether any token is global, a value that `torch.export` cannot follow, and pads to the
window. The decoder is not changed. Remove this when the encoder exports with a free length.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.models.led.modeling_led import LEDEncoder, LEDEncoderBaseModelOutput, LEDEncoderSelfAttention

from hfexport.modeling.traceable.longformer import masked_attention

__all__ = ["make_traceable"]


def make_traceable(model: torch.nn.Module) -> None:
    """Replace the encoder of an LED in place by one without padding to the window, with masked attention."""
    replacements = {LEDEncoder: _Encoder, LEDEncoderSelfAttention: _MaskedSelfAttention}
    for module in model.modules():
        if type(module) in replacements:
            module.__class__ = replacements[type(module)]


class _Encoder(LEDEncoder):
    # mypy objects to fewer parameters; the others arrive in `kwargs`.
    def forward(  # type: ignore[override]
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        global_attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> LEDEncoderBaseModelOutput:
        """Run all layers.

        Args:
            input_ids: (batch, sequence), unless `inputs_embeds` is given.
            attention_mask: (batch, sequence), 0 at padding; all ones by default.
            global_attention_mask: (batch, sequence), 1 at global tokens, if there are any.
            inputs_embeds: (batch, sequence, hidden).
            output_hidden_states: whether to return the states before each layer and after the last one.
            kwargs: not used.
        """
        del kwargs
        embeds = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        mask = embeds.new_ones(embeds.shape[:2]) if attention_mask is None else attention_mask
        is_masked = mask == 0
        is_global = None if global_attention_mask is None else (global_attention_mask != 0) & ~is_masked
        hidden = self.layernorm_embedding(embeds + self.embed_positions(embeds.shape[:2]))
        states = [hidden]
        for layer in self.layers:
            hidden = layer(hidden, None, is_index_masked=is_masked, is_index_global_attn=is_global)[0]
            states.append(hidden)
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return LEDEncoderBaseModelOutput(last_hidden_state=hidden, hidden_states=tuple(states) if wanted else None)


class _MaskedSelfAttention(LEDEncoderSelfAttention):
    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: None = None,
        is_index_masked: torch.Tensor | None = None,
        is_index_global_attn: torch.Tensor | None = None,
        is_global_attn: None = None,
        output_attentions: bool = False,
    ) -> tuple[torch.Tensor]:
        """Attend to the window and the global tokens; see `masked_attention`."""
        del attention_mask, is_global_attn, output_attentions
        assert is_index_masked is not None
        return (masked_attention(self, hidden_states, is_index_masked, is_index_global_attn),)
