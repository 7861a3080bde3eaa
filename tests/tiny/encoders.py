"""Encoders of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

TEXT: Final[Mapping[str, Any]] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 101,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
    "pad_token_id": 0,
}
ROBERTA: Final[Mapping[str, Any]] = {**TEXT, "max_position_embeddings": 66, "type_vocab_size": 1, "pad_token_id": 1}

CONFIGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "bert": TEXT,
    "electra": {**TEXT, "embedding_size": 20},
    "albert": {**TEXT, "embedding_size": 20},
    "distilbert": {
        **{"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
        **{"vocab_size": 101, "max_position_embeddings": 64, "pad_token_id": 0},
    },
    "roberta": ROBERTA,
    "xlm-roberta": {**ROBERTA, "vocab_size": 119},
    "deberta-v2": {
        **TEXT,
        **{"type_vocab_size": 0, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
        **{"position_buckets": 16, "max_relative_positions": -1, "norm_rel_ebd": "layer_norm"},
        **{"share_att_key": True, "position_biased_input": False, "pooler_hidden_size": 32},
    },
}

VARIANTS: Final = (
    ("deberta-v2", "sequence-classification", {"type_vocab_size": 2}),
    ("deberta-v2", "masked-lm", {"position_biased_input": True, "share_att_key": False}),
    ("bert", "causal-lm", {"is_decoder": True}),
)
