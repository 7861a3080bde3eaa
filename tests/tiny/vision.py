"""Image models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

VIT: Final[Mapping[str, Any]] = {
    **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48},
    **{"image_size": 32, "patch_size": 8},
}
BEIT: Final[Mapping[str, Any]] = {
    **VIT,
    **{"use_relative_position_bias": True, "use_mask_token": True, "layer_scale_init_value": 0.5},
    # Semantic segmentation takes one feature map for each of four layers.
    **{"num_hidden_layers": 4, "out_indices": [0, 1, 2, 3], "pool_scales": [1, 2]},
}

CONFIGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "vit": VIT,
    # Two classes serve image classification; without a choice transformers stumbles.
    "deit": {**VIT, "architectures": ["DeiTForImageClassification"]},
    "beit": BEIT,
    "data2vec-vision": BEIT,
    "swin": {
        **{"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
        **{"image_size": 32, "patch_size": 2},
    },
    "levit": {
        "architectures": ["LevitForImageClassification"],
        **{"image_size": 32, "kernel_size": 3, "stride": 2, "padding": 1, "patch_size": 16},
        **{"hidden_sizes": [16, 24, 32], "num_attention_heads": [2, 3, 4], "depths": [1, 2, 1]},
        **{"key_dim": [8, 8, 8], "attention_ratio": [2, 2, 2], "mlp_ratio": [2, 2, 2]},
    },
    "convnext": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1], "image_size": 64},
    "convnextv2": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1], "image_size": 64},
    # Its config knows no image size, as published ones do not.
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]},
    "poolformer": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]},
    "segformer": {
        **{"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1], "num_attention_heads": [1, 2, 2, 4]},
        **{"decoder_hidden_size": 16},
    },
    "mobilenet_v1": {"depth_multiplier": 0.25, "image_size": 64},
    "mobilenet_v2": {"depth_multiplier": 0.25, "image_size": 64},
    "mobilevit": {
        **{"hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [4, 8, 12, 16, 20, 24, 48], "image_size": 64},
        **{"num_attention_heads": 2, "aspp_out_channels": 16, "atrous_rates": [1, 2, 3]},
    },
}

VARIANTS: Final = (
    ("deit", "image-classification", {"architectures": ["DeiTForImageClassificationWithTeacher"]}),
    ("levit", "image-classification", {"architectures": ["LevitForImageClassificationWithTeacher"]}),
)
