"""MobileNet and MobileViT."""

from __future__ import annotations

from typing import ClassVar

from hfexport.export_config import VisionConfig

__all__ = ["MobileNetV1Config", "MobileNetV2Config", "MobileViTV2Config"]


class MobileNetV1Config(VisionConfig):
    """MobileNetV1: the bare model also returns its pooled features."""

    model_types: ClassVar[tuple[str, ...]] = ("mobilenet_v1",)
    tasks: ClassVar[tuple[str, ...]] = ("default", "image-classification")
    pools = True


class MobileNetV2Config(MobileNetV1Config):
    """MobileNetV2 and MobileViT."""

    model_types: ClassVar[tuple[str, ...]] = ("mobilenet_v2", "mobilevit")
    tasks = ("default", "image-classification", "semantic-segmentation")


class MobileViTV2Config(MobileNetV2Config):
    """MobileViTV2: it folds patches back with `Col2Im`, an operator of opset 18."""

    model_types = ("mobilevitv2",)
    opsets: ClassVar[tuple[int, int]] = (18, 23)
