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

GPTJ: Final[Mapping[str, Any]] = {
    **{"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "rotary_dim": 4, "vocab_size": 97},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
}

CONFIGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "gpt2": {
        **{"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 97},
        **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    },
    "gptj": {**GPTJ, "tie_word_embeddings": False},
    "codegen": {**GPTJ, "tie_word_embeddings": False},
    "gpt_neo": {
        **{"hidden_size": 32, "num_layers": 2, "num_heads": 4, "intermediate_size": 48, "vocab_size": 97},
        **{"attention_types": [[["global", "local"], 1]], "window_size": 9, "max_position_embeddings": 64},
        **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    },
    "bloom": {
        **{"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 97},
        **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    },
    "llama": {**LLAMA, "tie_word_embeddings": False},
    # Published Qwen3 models have heads whose size is not hidden_size / heads.
    "qwen3": {**LLAMA, "vocab_size": 113, "head_dim": 16, "tie_word_embeddings": True},
}

VARIANTS: Final = (
    # Six heads: slopes of a power of two, and those between.
    ("bloom", "causal-lm-with-past", {"n_head": 6, "hidden_size": 48}),
    ("gpt2", "sequence-classification", {"pad_token_id": None}),
    ("llama", "sequence-classification", {"pad_token_id": None}),
    # Rotary frequencies that change past the 64 positions of the config.
    ("llama", "causal-lm-with-past", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}),
    ("qwen3", "sequence-classification", {"pad_token_id": None}),
)
