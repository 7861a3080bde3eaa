"""Models that compare texts with images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from hfexport.export_config.axes import Axis
from hfexport.export_config.base import ExportConfig, Limit, TensorSpec

__all__ = ["DualEncoderConfig"]

_PER_TEXT: tuple[Axis, ...] = ("text_batch",)
_PER_IMAGE: tuple[Axis, ...] = ("image_batch",)


class DualEncoderConfig(ExportConfig):
    """Base class for a text encoder and an image encoder whose embeddings are compared, every image with every text.

    Texts and images have separate batch axes: one image can be compared with any number of labels.
    """

    masked: ClassVar[bool] = True
    """Whether the model takes an attention mask for texts."""

    @property
    def text_config(self) -> Any:
        return self.config.text_config

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        vision = self.config.vision_config
        image: tuple[Axis, ...] = ("image_batch", vision.num_channels, vision.image_size, vision.image_size)
        specs = [
            TensorSpec("input_ids", ("text_batch", "sequence"), "int64", "token_ids"),
            TensorSpec("pixel_values", image, "float", "pixel_values"),
        ]
        if self.masked:
            specs.append(TensorSpec("attention_mask", ("text_batch", "sequence"), "int64", "attention_mask"))
        return tuple(specs)

    @property
    def own_outputs(self) -> tuple[TensorSpec, ...]:
        return (
            TensorSpec("logits_per_image", _PER_IMAGE + _PER_TEXT, "float", "output"),
            TensorSpec("logits_per_text", _PER_TEXT + _PER_IMAGE, "float", "output"),
            TensorSpec("text_embeds", _PER_TEXT, "float", "output"),
            TensorSpec("image_embeds", _PER_IMAGE, "float", "output"),
        )

    @property
    def limits(self) -> Mapping[str, Limit]:
        return {"sequence": Limit(1, int(self.text_config.max_position_embeddings))}

    @property
    def trace_sizes(self) -> Mapping[str, int]:
        return {"text_batch": 2, "image_batch": 3, "sequence": 7}
