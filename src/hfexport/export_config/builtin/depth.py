"""Models that tell how far away the things in an image are."""

from __future__ import annotations

from hfexport.export_config import VisionConfig

__all__ = ["DptConfig", "GlpnConfig"]


class DptConfig(VisionConfig):
    """DPT: a ViT of the configured size, whose states are put together to a map again."""

    model_types = ("dpt",)
    tasks = ("default", "depth-estimation", "semantic-segmentation")


class GlpnConfig(VisionConfig):
    """GLPN: SegFormer's encoder, so height and width are free."""

    model_types = ("glpn",)
    tasks = ("default", "depth-estimation")
    free_image_size = True
    min_image_size = 32
    size_step = 32
