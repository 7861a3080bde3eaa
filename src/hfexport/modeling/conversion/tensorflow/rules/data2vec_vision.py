"""Data2Vec's segmentation head: transformers 5 renamed its layers, and its loader does not map the old names."""

from __future__ import annotations

from hfexport.modeling.conversion.tensorflow.rules import Rules

__all__ = ["DATA2VEC_VISION"]

DATA2VEC_VISION = Rules(
    model_types=("data2vec-vision",),
    renamed=(
        (r"^decode_head\.psp_modules\.(\d+)\.1\.", r"decode_head.psp_modules.blocks.\1.conv."),
        (r"^decode_head\.bottleneck\.", "decode_head.psp_bottleneck."),
        (r"^((?:decode|auxiliary)_head\..+)\.bn\.", r"\1.normalization."),
        (r"^((?:decode|auxiliary)_head\..+)\.conv\.weight$", r"\1.convolution.weight"),
    ),
)
