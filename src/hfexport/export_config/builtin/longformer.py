"""Longformer: attention within a window, and global attention for tokens that the caller marks."""

from __future__ import annotations

from collections.abc import Mapping

from hfexport.export_config import TensorSpec
from hfexport.export_config.builtin.roberta import RobertaConfig

__all__ = ["LongformerConfig"]


class LongformerConfig(RobertaConfig):
    """Longformer."""

    model_types = ("longformer",)
    tasks = tuple(name for name in RobertaConfig.tasks if name != "causal-lm")

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        ids, mask = super().inputs
        return (ids, mask, TensorSpec("global_attention_mask", ids.axes, "int64", "global_attention_mask"))

    @property
    def thresholds(self) -> Mapping[str, int]:
        window = self.config.attention_window
        return {"sequence": window if isinstance(window, int) else max(window)}
