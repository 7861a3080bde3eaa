"""DETR and YOLOS: object detection in images of any size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from hfexport.export_config import Limit, TensorSpec, VisionConfig

__all__ = ["DetrConfig", "TableTransformerConfig", "YolosConfig"]


class DetrConfig(VisionConfig):
    """DETR: the images of a batch are padded to one size, and a mask marks the pixels of each image."""

    model_types: ClassVar[tuple[str, ...]] = ("detr",)
    tasks: ClassVar[tuple[str, ...]] = ("default", "object-detection", "image-segmentation")
    free_image_size = True
    min_image_size = 32

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return (*super().inputs, TensorSpec("pixel_mask", ("batch", "height", "width"), "int64", "pixel_mask"))

    @property
    def image_size(self) -> tuple[int, int]:
        return 96, 128  # size of the traced example; the config has none


class TableTransformerConfig(DetrConfig):
    """Table Transformer and Conditional DETR."""

    model_types = ("table-transformer", "conditional_detr")
    tasks = ("default", "object-detection")


class YolosConfig(VisionConfig):
    """YOLOS: a ViT whose position embeddings are interpolated to the image's size."""

    model_types = ("yolos",)
    tasks = ("default", "object-detection")
    free_image_size = True

    @property
    def limits(self) -> Mapping[str, Limit]:
        patch = int(self.config.patch_size)
        return {"height": Limit(patch), "width": Limit(patch)}
