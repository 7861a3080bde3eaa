"""Llama and decoders with its interface: rotary positions, grouped-query attention."""

from __future__ import annotations

from hfexport.export_config import DecoderConfig

__all__ = ["LlamaConfig"]


class LlamaConfig(DecoderConfig):
    """Llama and Qwen3."""

    model_types = ("llama", "qwen3")
    tasks = (
        "default",
        "default-with-past",
        "causal-lm",
        "causal-lm-with-past",
        "sequence-classification",
        "token-classification",
        "question-answering",
    )
