"""BERT and related models: TensorFlow classes before transformers 4.10 stored a pooler even if no head uses it."""

from __future__ import annotations

from hfexport.modeling.conversion.tensorflow.rules import Rules

__all__ = ["BERT"]

BERT = Rules(
    model_types=("albert", "bert", "camembert", "layoutlm", "mobilebert", "roberta", "xlm-roberta"),
    left_out=(r"\.pooler\.", r"^cls\.seq_relationship\."),
)
