"""DETR and YOLOS: boxes around what is in an image of any size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from hfexport.export_config import Limit, TensorSpec, VisionConfig

__all__ = ["ConditionalDetrConfig", "DetrConfig", "TableTransformerConfig", "YolosConfig"]


class DetrConfig(VisionConfig):
    """DETR: images of a batch are padded to one frame, and a mask tells which pixels are an image's own."""

    model_types: ClassVar[tuple[str, ...]] = ("detr",)
    tasks: ClassVar[tuple[str, ...]] = ("default", "object-detection", "image-segmentation")
    free_image_size = True
    min_image_size = 32

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return (*super().inputs, TensorSpec("pixel_mask", ("batch", "height", "width"), "int64", "pixel_mask"))

    @property
    def image_size(self) -> tuple[int, int]:
        return 96, 128  # of the traced example; the config knows none


class ConditionalDetrConfig(DetrConfig):
    """Conditional DETR: queries that know where they look."""

    model_types = ("conditional_detr",)


class TableTransformerConfig(DetrConfig):
    """Table Transformer: DETR for the parts of tables."""

    model_types = ("table-transformer",)
    tasks = ("default", "object-detection")


class YolosConfig(VisionConfig):
    """YOLOS: a ViT whose positions are stretched to the image's size."""

    model_types = ("yolos",)
    tasks = ("default", "object-detection")
    free_image_size = True

    @property
    def limits(self) -> Mapping[str, Limit]:
        patch = int(self.config.patch_size)
        return {"height": Limit(patch), "width": Limit(patch)}
