"""CLIP and the models with its interface: images held against texts."""

from __future__ import annotations

from hfexport.export_config import DualEncoderConfig

__all__ = ["ClipConfig"]


class ClipConfig(DualEncoderConfig):
    """CLIP, GroupViT and OWL-ViT."""

    model_types = ("clip", "groupvit", "owlvit")
    tasks = ("default",)
