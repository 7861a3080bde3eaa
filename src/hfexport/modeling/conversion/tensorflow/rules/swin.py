"""Swin: TensorFlow stores the index table of relative positions, which PyTorch computes from the window's size."""

from __future__ import annotations

from hfexport.modeling.conversion.tensorflow.rules import Rules

__all__ = ["SWIN"]

SWIN = Rules(model_types=("swin",), left_out=(r"\.relative_position_index$",))
