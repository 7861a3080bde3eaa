"""ViT: an image of the configured size, cut into patches."""

from __future__ import annotations

from hfexport.export_config import VisionConfig

__all__ = ["VitConfig"]


class VitConfig(VisionConfig):
    """ViT."""

    model_types = ("vit",)
    tasks = ("default", "image-classification")
