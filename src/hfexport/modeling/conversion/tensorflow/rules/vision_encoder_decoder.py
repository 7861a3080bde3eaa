"""Vision encoder-decoders: TensorFlow prefixes the encoder's weights with its own name, PyTorch does not."""

from __future__ import annotations

from hfexport.modeling.conversion.tensorflow.rules import Rules

__all__ = ["VISION_ENCODER_DECODER"]

VISION_ENCODER_DECODER = Rules(
    model_types=("vision-encoder-decoder",),
    renamed=((r"^encoder\.\w+\.(embeddings|encoder|layernorm|pooler)\.", r"encoder.\1."),),
)
