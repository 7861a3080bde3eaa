"""MobileNet and MobileViT."""

from __future__ import annotations

from typing import ClassVar

from hfexport.export_config import VisionConfig

__all__ = ["MobileNetV1Config", "MobileNetV2Config"]


class MobileNetV1Config(VisionConfig):
    """MobileNetV1: the bare model also returns its pooled features."""

    model_types: ClassVar[tuple[str, ...]] = ("mobilenet_v1",)
    tasks: ClassVar[tuple[str, ...]] = ("default", "image-classification")
    pools = True


class MobileNetV2Config(MobileNetV1Config):
    """MobileNetV2, MobileViT and MobileViTV2."""

    model_types = ("mobilenet_v2", "mobilevit", "mobilevitv2")
    tasks = ("default", "image-classification", "semantic-segmentation")
