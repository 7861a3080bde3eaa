"""CLIP's separate text and vision models: TensorFlow prefixes their names with that of the whole model."""

from __future__ import annotations

from hfexport.modeling.conversion.tensorflow.rules import Rules

__all__ = ["CLIP"]

CLIP = Rules(
    model_types=("clip_text_model", "clip_vision_model"),
    renamed=((r"^clip\.", ""),),
)
