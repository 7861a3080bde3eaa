"""GPT-Neo: every other layer uses local attention within a window."""

from __future__ import annotations

from collections.abc import Mapping

from hfexport.export_config import DecoderConfig

__all__ = ["GptNeoConfig"]


class GptNeoConfig(DecoderConfig):
    """GPT-Neo."""

    model_types = ("gpt_neo",)
    tasks = (
        "default",
        "default-with-past",
        "causal-lm",
        "causal-lm-with-past",
        "sequence-classification",
        "token-classification",
        "question-answering",
    )

    @property
    def thresholds(self) -> Mapping[str, int]:
        return {"sequence": self.config.window_size} if "local" in self.config.attention_layers else {}
