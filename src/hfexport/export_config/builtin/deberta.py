"""DeBERTa: relative positions; an absolute position table only if the config asks for one."""

from __future__ import annotations

from typing import ClassVar

from hfexport.export_config import EncoderConfig, TensorSpec

__all__ = ["DebertaConfig", "DebertaV2Config"]


class DebertaConfig(EncoderConfig):
    """DeBERTa, first version."""

    model_types: ClassVar[tuple[str, ...]] = ("deberta",)
    tasks: ClassVar[tuple[str, ...]] = (
        "default",
        "masked-lm",
        "sequence-classification",
        "token-classification",
        "question-answering",
    )
    token_types = True

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        # Most published checkpoints have no token type table and ignore the input.
        specs = super().inputs
        return specs if self.config.type_vocab_size > 0 else specs[:-1]


class DebertaV2Config(DebertaConfig):
    """DeBERTa-v2 and v3."""

    model_types = ("deberta-v2",)
    tasks = (*DebertaConfig.tasks, "multiple-choice")
