"""DeBERTa-v2 and v3: relative positions, and an absolute table only where the config asks for it."""

from __future__ import annotations

from hfexport.export_config import EncoderConfig, TensorSpec

__all__ = ["DebertaV2Config"]


class DebertaV2Config(EncoderConfig):
    """DeBERTa-v2 and v3."""

    model_types = ("deberta-v2",)
    tasks = (
        "default",
        "masked-lm",
        "sequence-classification",
        "multiple-choice",
        "token-classification",
        "question-answering",
    )
    token_types = True

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        # Most published checkpoints have no token type table and ignore the input.
        specs = super().inputs
        return specs if self.config.type_vocab_size > 0 else specs[:-1]
