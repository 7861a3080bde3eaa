"""Convolutional image models: height and width are free."""

from __future__ import annotations

from hfexport.export_config import VisionConfig

__all__ = ["ConvNextConfig", "ResNetConfig"]


class ConvNextConfig(VisionConfig):
    """ConvNeXT."""

    model_types = ("convnext",)
    tasks = ("default", "image-classification")
    free_image_size = True
    min_image_size = 32  # four stages that each divide the size: 4 * 2 * 2 * 2


class ResNetConfig(ConvNextConfig):
    """ResNet."""

    model_types = ("resnet",)
