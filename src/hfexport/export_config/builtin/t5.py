"""T5, mT5 and UMT5: relative positions, so there is no maximum length."""

from __future__ import annotations

from typing import ClassVar

from hfexport.export_config import Seq2SeqConfig

__all__ = ["T5Config"]


class T5Config(Seq2SeqConfig):
    """T5, mT5 and UMT5."""

    model_types: ClassVar[tuple[str, ...]] = ("t5", "mt5", "umt5")
    tasks: ClassVar[tuple[str, ...]] = ("default", "default-with-past", "seq2seq-lm", "seq2seq-lm-with-past")

    @property
    def decoder_layers(self) -> int:
        return int(self.config.num_decoder_layers)

    @property
    def decoder_heads(self) -> int:
        return int(self.config.num_heads)

    @property
    def head_size(self) -> int:
        return int(self.config.d_kv)

    @property
    def max_encoder_positions(self) -> int | None:
        return None

    @property
    def max_decoder_positions(self) -> int | None:
        return None
