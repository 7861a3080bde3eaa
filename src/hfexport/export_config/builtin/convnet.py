"""Image models with free height and width: convolutional models and SegFormer."""

from __future__ import annotations

from typing import ClassVar

from hfexport.export_config import VisionConfig

__all__ = ["ConvNextConfig", "PoolFormerConfig", "ResNetConfig", "SegformerConfig"]


class ConvNextConfig(VisionConfig):
    """ConvNeXT and ConvNeXTV2."""

    model_types: ClassVar[tuple[str, ...]] = ("convnext", "convnextv2")
    tasks: ClassVar[tuple[str, ...]] = ("default", "image-classification")
    free_image_size = True
    min_image_size = 32  # four stages that each divide the size: 4 * 2 * 2 * 2


class ResNetConfig(ConvNextConfig):
    """ResNet, RegNet and BiT."""

    model_types = ("resnet", "regnet", "bit")


class PoolFormerConfig(ConvNextConfig):
    """PoolFormer: average pooling instead of attention."""

    model_types = ("poolformer",)


class SegformerConfig(ConvNextConfig):
    """SegFormer: attention without positions over a grid that convolutions downsample."""

    model_types = ("segformer",)
    tasks = ("default", "image-classification", "semantic-segmentation")
