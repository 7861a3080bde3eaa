"""GPT-2."""

from __future__ import annotations

from hfexport.export_config import DecoderConfig

__all__ = ["Gpt2Config"]


class Gpt2Config(DecoderConfig):
    """GPT-2."""

    model_types = ("gpt2",)
    tasks = (
        "default",
        "default-with-past",
        "causal-lm",
        "causal-lm-with-past",
        "sequence-classification",
        "token-classification",
    )
