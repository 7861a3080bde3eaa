"""BERT and the encoders that share its inputs: token ids, mask and token types."""

from __future__ import annotations

from typing import ClassVar

from hfexport.export_config import EncoderConfig

__all__ = ["AlbertConfig", "BertConfig"]


class BertConfig(EncoderConfig):
    """BERT and ELECTRA."""

    model_types: ClassVar[tuple[str, ...]] = ("bert", "electra")
    tasks: ClassVar[tuple[str, ...]] = (
        "default",
        "masked-lm",
        "causal-lm",
        "sequence-classification",
        "multiple-choice",
        "token-classification",
        "question-answering",
    )
    token_types = True


class AlbertConfig(BertConfig):
    """ALBERT: factorised embeddings, one layer used many times; no causal head."""

    model_types = ("albert",)
    tasks = tuple(name for name in BertConfig.tasks if name != "causal-lm")
