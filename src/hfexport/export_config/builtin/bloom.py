"""BLOOM: attention biased by distance (ALiBi), which it counts from the mask; no positions, no longest sequence."""

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
    # A bias that grows with the distance drowns the scores it is added to: at 512 tokens in fp16, by a quarter.
    half_precision = False

    @property
    def max_positions(self) -> None:
        return None
