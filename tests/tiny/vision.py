"""Image models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

CONFIGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "vit": {
        **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48},
        **{"image_size": 32, "patch_size": 8},
    },
    "convnext": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1], "image_size": 64},
    # Its config knows no image size, as published ones do not.
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]},
}

VARIANTS: Final = ()
