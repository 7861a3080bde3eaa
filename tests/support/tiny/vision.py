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

TEXT: Final[Mapping[str, Any]] = {
    **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48},
    **{"vocab_size": 101, "max_position_embeddings": 40, "pad_token_id": 1, "bos_token_id": 99, "eos_token_id": 100},
}
RESNET: Final[Mapping[str, Any]] = {
    **{"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
    # Image segmentation takes the feature maps of all stages, detection the last.
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
DETR: Final[Mapping[str, Any]] = {
    **{"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None, "backbone_config": RESNET},
    **{"d_model": 64, "num_queries": 9, "encoder_layers": 1, "decoder_layers": 2},
    # The mask head divides d_model + heads into groups of eight.
    **{"encoder_attention_heads": 8, "decoder_attention_heads": 8, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48},
}

CONFIGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "vit": VIT,
    # Two classes serve image classification; without a choice transformers stumbles.
    "deit": {**VIT, "architectures": ["DeiTForImageClassification"]},
    "vit_msn": VIT,
    "ijepa": VIT,
    "dinov2_with_registers": {**VIT, "mlp_ratio": 2, "num_register_tokens": 3},
    "pvt": {
        **{"image_size": 64, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "mlp_ratios": [2, 2, 2, 2]},
        **{"num_attention_heads": [1, 2, 2, 4]},
    },
    "beit": BEIT,
    "data2vec-vision": BEIT,
    "swin": {
        **{"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
        **{"image_size": 32, "patch_size": 2},
    },
    "swinv2": {
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
    "regnet": {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1], "groups_width": 4},
    "bit": {"embedding_size": 8, "hidden_sizes": [32, 32, 64, 64], "depths": [1, 1, 2, 1], "num_groups": 4},
    "poolformer": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]},
    "segformer": {
        **{"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1], "num_attention_heads": [1, 2, 2, 4]},
        **{"decoder_hidden_size": 16},
    },
    "clip": {"text_config": TEXT, "vision_config": VIT, "projection_dim": 24},
    "owlvit": {"text_config": {**TEXT, "max_position_embeddings": 16}, "vision_config": VIT, "projection_dim": 24},
    "owlv2": {"text_config": {**TEXT, "max_position_embeddings": 16}, "vision_config": VIT, "projection_dim": 24},
    "groupvit": {
        "text_config": TEXT,
        "vision_config": {
            **{"hidden_size": 32, "depths": [1, 2, 1], "num_hidden_layers": 4, "num_attention_heads": 4},
            **{"intermediate_size": 48, "num_group_tokens": [8, 4, 0], "num_output_groups": [8, 4, 0]},
            **{"image_size": 32, "patch_size": 4, "assign_mlp_ratio": [0.5, 4]},
        },
        **{"projection_dim": 24, "projection_intermediate_dim": 48},
    },
    "detr": DETR,
    "conditional_detr": DETR,
    "table-transformer": DETR,
    "dpt": {
        **{**VIT, "num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8, 8, 16, 16]},
        **{"reassemble_factors": [4, 2, 1, 0.5], "fusion_hidden_size": 16, "is_hybrid": False},
    },
    "glpn": {
        **{"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4]},
        **{"decoder_hidden_size": 16},
    },
    "yolos": {**VIT, "image_size": [32, 48], "num_detection_tokens": 6},
    "imagegpt": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 97},
    "layoutlmv3": {
        **TEXT,
        **{"max_position_embeddings": 64, "input_size": 32, "patch_size": 8, "coordinate_size": 5, "shape_size": 6},
        **{"max_2d_position_embeddings": 1024, "rel_pos_bins": 8, "max_rel_pos": 16, "rel_2d_pos_bins": 8},
        **{"max_rel_2d_pos": 64, "bos_token_id": 0, "eos_token_id": 2},
    },
    "mobilenet_v1": {"depth_multiplier": 0.25, "image_size": 64},
    "mobilenet_v2": {"depth_multiplier": 0.25, "image_size": 64},
    "mobilevitv2": {"image_size": 64, "width_multiplier": 0.25, "n_attn_blocks": [1, 1, 1], "aspp_out_channels": 16},
    "mobilevit": {
        **{"hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [4, 8, 12, 16, 20, 24, 48], "image_size": 64},
        **{"num_attention_heads": 2, "aspp_out_channels": 16, "atrous_rates": [1, 2, 3]},
    },
}

VARIANTS: Final = (
    # The end of a text is its largest id in checkpoints that know no better, as the first ones did.
    ("clip", "default", {"text_config": {**TEXT, "eos_token_id": 2}}),
    ("deit", "image-classification", {"architectures": ["DeiTForImageClassificationWithTeacher"]}),
    ("levit", "image-classification", {"architectures": ["LevitForImageClassificationWithTeacher"]}),
)
