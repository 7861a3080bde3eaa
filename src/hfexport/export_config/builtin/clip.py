"""CLIP and the models with its interface: images held against texts."""

from __future__ import annotations

from hfexport.export_config import DualEncoderConfig

__all__ = ["ClipConfig"]


class ClipConfig(DualEncoderConfig):
    """CLIP, GroupViT, OWL-ViT and OWLv2."""

    model_types = ("clip", "groupvit", "owlvit", "owlv2")
    tasks = ("default",)
