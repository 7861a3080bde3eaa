"""Vision encoder-decoders: TensorFlow keeps the encoder's own name before its weights, PyTorch does not."""

from __future__ import annotations

from hfexport.modeling.conversion.tensorflow.rules import Rules

__all__ = ["VISION_ENCODER_DECODER"]

VISION_ENCODER_DECODER = Rules(
    model_types=("vision-encoder-decoder",),
    renamed=((r"^encoder\.\w+\.(embeddings|encoder|layernorm|pooler)\.", r"encoder.\1."),),
)
