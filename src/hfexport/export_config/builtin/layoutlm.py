"""LayoutLM: BERT with a bounding box on the page for each token."""

from __future__ import annotations

from hfexport.export_config import EncoderConfig, TensorSpec

__all__ = ["LayoutLmConfig"]


class LayoutLmConfig(EncoderConfig):
    """LayoutLM."""

    model_types = ("layoutlm",)
    tasks = ("default", "masked-lm", "sequence-classification", "token-classification")
    token_types = True

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        ids, *rest = super().inputs
        return (ids, TensorSpec("bbox", ("batch", "sequence", 4), "int64", "boxes"), *rest)
