"""XLM and FlauBERT: one transformer for masked and causal language models, with language ids in multilingual models."""

from __future__ import annotations

from typing import ClassVar

from hfexport.export_config import EncoderConfig, TensorSpec

__all__ = ["FlaubertConfig", "XlmConfig"]


class FlaubertConfig(EncoderConfig):
    """FlauBERT."""

    model_types: ClassVar[tuple[str, ...]] = ("flaubert",)
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
    def auto_class(self) -> str:
        # Masked and causal models share a class, and only FlauBERT's is listed; the config's `causal` tells them apart.
        return "AutoModelForMaskedLM" if self.task.name == "causal-lm" else super().auto_class

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        ids, mask = super().inputs
        langs = (TensorSpec("langs", ids.axes, "int64", "language_ids"),)
        return (ids, mask, *(langs if self.config.n_langs > 1 and self.config.use_lang_emb else ()))


class XlmConfig(FlaubertConfig):
    """XLM, which looks token types up in the word embeddings."""

    model_types = ("xlm",)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        ids, *rest = super().inputs
        return (ids, *rest, TensorSpec("token_type_ids", ids.axes, "int64", "token_ids"))
