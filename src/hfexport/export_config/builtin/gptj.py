"""GPT-J and CodeGen: rotary positions from a table of fixed length."""

from __future__ import annotations

from typing import ClassVar

from hfexport.export_config import DecoderConfig

__all__ = ["CodeGenConfig", "GptJConfig"]


class GptJConfig(DecoderConfig):
    """GPT-J."""

    model_types: ClassVar[tuple[str, ...]] = ("gptj",)
    tasks: ClassVar[tuple[str, ...]] = (
        "default",
        "default-with-past",
        "causal-lm",
        "causal-lm-with-past",
        "question-answering",
        "sequence-classification",
    )


class CodeGenConfig(GptJConfig):
    """CodeGen, which has no classifiers in transformers."""

    model_types = ("codegen",)
    tasks = ("default", "default-with-past", "causal-lm", "causal-lm-with-past")
