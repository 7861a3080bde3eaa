"""ViT and image transformers with its interface: an image of the configured size, split into patches."""

from __future__ import annotations

from hfexport.export_config import VisionConfig

__all__ = ["BeitConfig", "LevitConfig", "SwinConfig", "VitConfig"]


class VitConfig(VisionConfig):
    """ViT, DeiT, ViT-MSN, I-JEPA and DINOv2 with registers."""

    model_types = ("vit", "deit", "vit_msn", "ijepa", "dinov2_with_registers")
    tasks = ("default", "image-classification")


class BeitConfig(VisionConfig):
    """BEiT and Data2VecVision: relative positions, shared or per layer."""

    model_types = ("beit", "data2vec-vision")
    tasks = ("default", "image-classification", "semantic-segmentation")


class SwinConfig(VisionConfig):
    """Swin and Swinv2: attention in windows that shift between layers. PVT: attention over a downsampled grid."""

    model_types = ("swin", "swinv2", "pvt")
    tasks = ("default", "image-classification")


class LevitConfig(VisionConfig):
    """LeViT: convolutions, then attention with a bias for each offset at the configured size."""

    model_types = ("levit",)
    tasks = ("default", "image-classification")
