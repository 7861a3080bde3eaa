"""BLOOM: attention with a distance bias (ALiBi) computed from the mask; no position ids and no maximum length."""

from __future__ import annotations

from hfexport.export_config import DecoderConfig

__all__ = ["BloomConfig"]


class BloomConfig(DecoderConfig):
    """BLOOM."""

    model_types = ("bloom",)
    tasks = (
        "default",
        "default-with-past",
        "causal-lm",
        "causal-lm-with-past",
        "sequence-classification",
        "token-classification",
        "question-answering",
    )
    takes_positions = False
    # The bias grows with the distance, so that fp16 rounds the scores coarsely: by a quarter at 512 tokens.
    half_precision = False

    @property
    def max_positions(self) -> None:
        return None
