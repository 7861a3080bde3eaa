"""BERT and encoders with the same inputs: token ids, attention mask and token types."""

from __future__ import annotations

from typing import ClassVar

from hfexport.export_config import EncoderConfig

__all__ = ["BertConfig", "BertWithoutCausalConfig"]


class BertConfig(EncoderConfig):
    """BERT, ELECTRA, RemBERT and RoFormer."""

    model_types: ClassVar[tuple[str, ...]] = ("bert", "electra", "rembert", "roformer")
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


class BertWithoutCausalConfig(BertConfig):
    """ALBERT, ConvBERT, MobileBERT and SqueezeBERT, which have no causal head."""

    model_types = ("albert", "convbert", "mobilebert", "squeezebert")
    tasks = tuple(name for name in BertConfig.tasks if name != "causal-lm")
