"""Depth estimation models."""

from __future__ import annotations

from hfexport.export_config import VisionConfig

__all__ = ["DptConfig", "GlpnConfig"]


class DptConfig(VisionConfig):
    """DPT: a ViT of the configured size whose hidden states are reassembled into a depth map."""

    model_types = ("dpt",)
    tasks = ("default", "depth-estimation", "semantic-segmentation")


class GlpnConfig(VisionConfig):
    """GLPN: the encoder of SegFormer, with free height and width."""

    model_types = ("glpn",)
    tasks = ("default", "depth-estimation")
    free_image_size = True
    min_image_size = 32
    size_step = 32
