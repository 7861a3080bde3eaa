"""RoBERTa and related encoders: positions start after the padding id and depend on which input_ids are padding."""

from __future__ import annotations

from typing import ClassVar

from hfexport.export_config import EncoderConfig

__all__ = ["RobertaConfig", "RobertaWithoutCausalConfig"]


class RobertaConfig(EncoderConfig):
    """RoBERTa, CamemBERT, XLM-RoBERTa and XLM-RoBERTa-XL."""

    model_types: ClassVar[tuple[str, ...]] = ("roberta", "camembert", "data2vec-text", "xlm-roberta", "xlm-roberta-xl")
    tasks: ClassVar[tuple[str, ...]] = (
        "default",
        "masked-lm",
        "causal-lm",
        "sequence-classification",
        "multiple-choice",
        "token-classification",
        "question-answering",
    )

    @property
    def max_positions(self) -> int:
        return int(self.config.max_position_embeddings) - int(self.config.pad_token_id) - 1


class RobertaWithoutCausalConfig(RobertaConfig):
    """I-BERT: RoBERTa with integer approximations of its activations, without a causal head."""

    model_types = ("ibert",)
    tasks = tuple(name for name in RobertaConfig.tasks if name != "causal-lm")
