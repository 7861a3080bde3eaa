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

XLM: Final[Mapping[str, Any]] = {
    **{"emb_dim": 32, "n_layers": 2, "n_heads": 4, "vocab_size": 101, "max_position_embeddings": 64},
    **{"pad_token_id": 2, "bos_token_id": 0, "eos_token_id": 1},
}

CONFIGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "bert": TEXT,
    # Block-sparse past (5 + 2) * 4 = 28 tokens.
    "big_bird": {**TEXT, "block_size": 4, "num_random_blocks": 1, "sep_token_id": 5},
    "electra": {**TEXT, "embedding_size": 20},
    "albert": {**TEXT, "embedding_size": 20},
    "convbert": {**TEXT, "embedding_size": 20, "conv_kernel_size": 5},
    "mobilebert": {
        **{**TEXT, "embedding_size": 20, "intra_bottleneck_size": 16},
        **{"num_feedforward_networks": 2, "normalization_type": "no_norm"},
    },
    "rembert": {**TEXT, "input_embedding_size": 20, "output_embedding_size": 24},
    "roformer": {**TEXT, "embedding_size": 20},
    "squeezebert": {
        **{**TEXT, "embedding_size": 32, "q_groups": 2, "k_groups": 2, "v_groups": 2},
        **{"intermediate_groups": 2, "output_groups": 2},
    },
    "layoutlm": {**TEXT, "max_2d_position_embeddings": 50},
    "distilbert": {
        **{"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
        **{"vocab_size": 101, "max_position_embeddings": 64, "pad_token_id": 0},
    },
    "roberta": ROBERTA,
    "camembert": ROBERTA,
    "data2vec-text": ROBERTA,
    "ibert": ROBERTA,
    # Windows of two sizes, neither of which the traced length fits.
    "longformer": {**ROBERTA, "attention_window": [6, 12]},
    "xlm-roberta": {**ROBERTA, "vocab_size": 119},
    "xlm-roberta-xl": {**ROBERTA, "vocab_size": 119},
    "deberta": {
        **{**TEXT, "type_vocab_size": 0, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
        **{"position_biased_input": False, "pooler_hidden_size": 32},
    },
    "perceiver": {
        **{"num_latents": 8, "d_latents": 32, "d_model": 24, "num_self_attends_per_block": 2, "image_size": 8},
        **{"num_self_attention_heads": 4, "num_cross_attention_heads": 4, "vocab_size": 101},
        **{"max_position_embeddings": 64, "architectures": ["PerceiverForImageClassificationLearned"]},
    },
    "flaubert": XLM,
    # Published multilingual ones want a language for every token.
    "xlm": {**XLM, "n_langs": 3},
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
    ("big_bird", "default", {"attention_type": "original_full"}),
    ("big_bird", "question-answering", {"num_random_blocks": 2, "block_size": 3}),
    ("convbert", "default", {"num_groups": 2, "head_ratio": 4}),
    ("deberta", "masked-lm", {"position_biased_input": True, "type_vocab_size": 2, "max_relative_positions": 12}),
    ("flaubert", "causal-lm", {"causal": True}),
    ("mobilebert", "default", {"normalization_type": "layer_norm", "use_bottleneck_attention": True}),
    (
        *("perceiver", "image-classification"),
        {"architectures": ["PerceiverForImageClassificationFourier"], "num_cross_attention_heads": 1, "d_latents": 16},
    ),
    ("rembert", "causal-lm", {"is_decoder": True}),
    ("roformer", "causal-lm", {"is_decoder": True, "rotary_value": True}),
    ("xlm", "causal-lm", {"causal": True, "sinusoidal_embeddings": True}),
    ("xlm", "masked-lm", {"n_langs": 1}),
)
