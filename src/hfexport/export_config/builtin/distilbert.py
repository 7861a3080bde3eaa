"""DistilBERT: BERT without token types."""

from __future__ import annotations

from hfexport.export_config import EncoderConfig

__all__ = ["DistilBertConfig"]


class DistilBertConfig(EncoderConfig):
    """DistilBERT."""

    model_types = ("distilbert",)
    tasks = (
        "default",
        "masked-lm",
        "sequence-classification",
        "multiple-choice",
        "token-classification",
        "question-answering",
    )
