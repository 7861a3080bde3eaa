"""MPNet: every TensorFlow class has the pooler, also those whose head does not use it."""

from __future__ import annotations

from hfexport.modeling.conversion.tensorflow.rules import Rules

__all__ = ["MPNET"]

MPNET = Rules(model_types=("mpnet",), left_out=(r"^mpnet\.pooler\.dense\.",))
