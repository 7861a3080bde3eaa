"""BART and related models: the logits' bias is a layer in TensorFlow, and a buffer of the model in PyTorch."""

from __future__ import annotations

from hfexport.modeling.conversion.tensorflow.rules import Rules

__all__ = ["BART"]

BART = Rules(
    model_types=("bart", "blenderbot", "blenderbot-small", "marian", "mbart", "pegasus", "led"),
    renamed=((r"^(model\.)?final_logits_bias\.final_logits_bias$", "final_logits_bias"),),
)
