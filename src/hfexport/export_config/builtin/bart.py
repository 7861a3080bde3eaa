"""BART and encoder-decoders of its design: learned or sinusoidal positions, cross-attention in every layer."""

from __future__ import annotations

from typing import ClassVar

from hfexport.export_config import DecoderConfig, Seq2SeqConfig

__all__ = ["BartConfig", "BartDecoderConfig", "BlenderbotConfig", "M2M100Config", "PlBartConfig"]

_GENERATION = ("default", "default-with-past", "seq2seq-lm", "seq2seq-lm-with-past")
_CAUSAL = ("causal-lm", "causal-lm-with-past")


class BartDecoderConfig(DecoderConfig):
    """The decoder alone, with a causal head. Positions count every token, padding included."""

    takes_positions = False

    @property
    def vocabulary_size(self) -> int:
        return int(getattr(self.config, "decoder_vocab_size", None) or self.config.vocab_size)

    @property
    def cache_heads(self) -> int:
        return int(self.config.decoder_attention_heads)

    @property
    def cache_layers(self) -> int:
        return int(self.config.decoder_layers)

    @property
    def head_size(self) -> int:
        return int(self.config.d_model) // self.cache_heads


class BartConfig(Seq2SeqConfig):
    """BART, mBART and MVP."""

    model_types: ClassVar[tuple[str, ...]] = ("bart", "mbart", "mvp")
    tasks: ClassVar[tuple[str, ...]] = (*_GENERATION, *_CAUSAL, "sequence-classification", "question-answering")
    decoder: ClassVar[type[DecoderConfig] | None] = BartDecoderConfig


class PlBartConfig(BartConfig):
    """PLBART, which has no question-answering head."""

    model_types = ("plbart",)
    tasks = tuple(name for name in BartConfig.tasks if name != "question-answering")


class BlenderbotConfig(BartConfig):
    """Blenderbot, BlenderbotSmall, Marian and Pegasus, which only generate."""

    model_types = ("blenderbot", "blenderbot-small", "marian", "pegasus")
    tasks = (*_GENERATION, *_CAUSAL)


class M2M100Config(BartConfig):
    """M2M100, whose decoder has no head of its own."""

    model_types = ("m2m_100",)
    tasks = _GENERATION
    decoder = None
