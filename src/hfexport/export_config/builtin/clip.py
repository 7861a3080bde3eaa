"""CLIP and models with its interface, which compare images with texts."""

from __future__ import annotations

from hfexport.export_config import DualEncoderConfig

__all__ = ["ClipConfig"]


class ClipConfig(DualEncoderConfig):
    """CLIP, GroupViT, OWL-ViT and OWLv2."""

    model_types = ("clip", "groupvit", "owlvit", "owlv2")
    tasks = ("default",)
