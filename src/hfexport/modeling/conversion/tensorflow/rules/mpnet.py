"""MPNet: every TensorFlow class stores the pooler, even if its head does not use it."""

from __future__ import annotations

from hfexport.modeling.conversion.tensorflow.rules import Rules

__all__ = ["MPNET"]

MPNET = Rules(model_types=("mpnet",), left_out=(r"^mpnet\.pooler\.dense\.",))
