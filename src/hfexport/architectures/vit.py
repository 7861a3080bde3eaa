"""ViT and the image transformers with its interface: an image of the configured size, cut into patches."""

from __future__ import annotations

from hfexport.export_config import VisionConfig

__all__ = ["BeitConfig", "LevitConfig", "SwinConfig", "VitConfig"]


class VitConfig(VisionConfig):
    """ViT and DeiT."""

    model_types = ("vit", "deit")
    tasks = ("default", "image-classification")


class BeitConfig(VisionConfig):
    """BEiT and Data2VecVision: relative positions, shared or by layer."""

    model_types = ("beit", "data2vec-vision")
    tasks = ("default", "image-classification", "semantic-segmentation")


class SwinConfig(VisionConfig):
    """Swin: attention in windows that shift from layer to layer."""

    model_types = ("swin",)
    tasks = ("default", "image-classification")


class LevitConfig(VisionConfig):
    """LeViT: convolutions, then attention with biases for every offset of the configured size."""

    model_types = ("levit",)
    tasks = ("default", "image-classification")
