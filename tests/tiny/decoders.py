"""Decoders of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

LLAMA: Final[Mapping[str, Any]] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 101,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

CONFIGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "gpt2": {
        **{"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 97},
        **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    },
    "llama": {**LLAMA, "tie_word_embeddings": False},
    # Published Qwen3 models have heads whose size is not hidden_size / heads.
    "qwen3": {**LLAMA, "vocab_size": 113, "head_dim": 16, "tie_word_embeddings": True},
}

VARIANTS: Final = (
    ("gpt2", "sequence-classification", {"pad_token_id": None}),
    ("llama", "sequence-classification", {"pad_token_id": None}),
    ("qwen3", "sequence-classification", {"pad_token_id": None}),
)
