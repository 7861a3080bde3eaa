"""RoBERTa and XLM-RoBERTa: positions start behind the padding id, and come from where input_ids are not padding."""

from __future__ import annotations

from hfexport.export_config import EncoderConfig

__all__ = ["RobertaConfig"]


class RobertaConfig(EncoderConfig):
    """RoBERTa and XLM-RoBERTa."""

    model_types = ("roberta", "xlm-roberta")
    tasks = (
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
