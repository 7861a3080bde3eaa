"""Moonshine: speech recognition for audio of any length."""

from __future__ import annotations

from typing import Any

from hfexport.export_config import Convolution, SoundSeq2SeqConfig

__all__ = ["MoonshineConfig"]


class MoonshineConfig(SoundSeq2SeqConfig):
    """Moonshine. The encoder uses rotary positions without a maximum."""

    model_types = ("moonshine",)
    tasks = ("default", "default-with-past", "speech2seq-lm", "speech2seq-lm-with-past")

    @property
    def convolutions(self) -> tuple[Convolution, ...]:
        return (Convolution(127, 64), Convolution(7, 3), Convolution(3, 2))

    def mask_of_states(self, mask: Any, states: int) -> Any:
        # One audio sample per stride decides the mask of its state.
        return mask[:, :: 64 * 3 * 2][:, :states]

    @property
    def encoder_size(self) -> int:
        return int(self.config.hidden_size)

    @property
    def decoder_layers(self) -> int:
        return int(self.config.decoder_num_hidden_layers)

    @property
    def decoder_heads(self) -> int:
        # Building the encoder overwrites the config's values for the decoder's heads:
        # https://github.com/huggingface/transformers/blob/main/src/transformers/models/moonshine/modeling_moonshine.py
        return int(self.config.encoder_num_key_value_heads)

    @property
    def head_size(self) -> int:
        return int(self.config.hidden_size) // int(self.config.encoder_num_attention_heads)

    @property
    def max_encoder_positions(self) -> int | None:
        return None
