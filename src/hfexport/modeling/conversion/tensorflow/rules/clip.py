"""CLIP's text and vision models alone: TensorFlow keeps the whole model's name before theirs."""

from __future__ import annotations

from hfexport.modeling.conversion.tensorflow.rules import Rules

__all__ = ["CLIP"]

CLIP = Rules(
    model_types=("clip_text_model", "clip_vision_model"),
    renamed=((r"^clip\.", ""),),
)
