"""Data2VecVision: the heads for segmentation have other names in PyTorch."""

from __future__ import annotations

from hfexport.conversion.tensorflow.rules import Rules

__all__ = ["DATA2VEC_VISION"]

DATA2VEC_VISION = Rules(model_types=("data2vec-vision",))
