"""Encoder-decoders. Encoder and decoder differ in depth and heads, so that a mix-up shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

BART: Final[Mapping[str, Any]] = {
    **{"d_model": 24, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 3},
    **{"decoder_attention_heads": 4, "encoder_ffn_dim": 40, "decoder_ffn_dim": 36},
    **{"vocab_size": 101, "max_position_embeddings": 64, "scale_embedding": True},
    **{"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2},
}
T5: Final[Mapping[str, Any]] = {
    **{"d_model": 24, "d_kv": 8, "d_ff": 40, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4},
    **{"relative_attention_num_buckets": 8, "relative_attention_max_distance": 20, "vocab_size": 101},
    **{"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0},
}

FEWER_LAYERS: Final[Mapping[str, Mapping[str, int]]] = {
    "t5": {"num_layers": 1, "num_decoder_layers": 2},
    "bart": {"encoder_layers": 1, "decoder_layers": 2},
    "whisper": {"encoder_layers": 1, "decoder_layers": 2},
}
"""Changes for tests that need an encoder-decoder, but not many layers of it: an export takes half as long."""

ONE_LAYER: Final[Mapping[str, Mapping[str, int]]] = {
    "t5": {"num_layers": 1, "num_decoder_layers": 1},
    "bart": {"encoder_layers": 1, "decoder_layers": 1},
}
"""Changes for tests in which nothing depends on a second layer."""

CONFIGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "bart": BART,
    "mbart": BART,
    "plbart": BART,
    # Block-sparse past 28 tokens.
    "bigbird_pegasus": {**BART, "attention_type": "block_sparse", "block_size": 4, "num_random_blocks": 1},
    "blenderbot": BART,
    "blenderbot-small": BART,
    "m2m_100": BART,
    # Marian begins with the padding token.
    "marian": {**BART, "pad_token_id": 100, "eos_token_id": 0, "decoder_start_token_id": 100},
    "mvp": BART,
    "pegasus": {**BART, "pad_token_id": 0, "decoder_start_token_id": 0, "eos_token_id": 1},
    "t5": T5,
    "umt5": T5,
    # Published ones of these have gated layers and a head of their own.
    "mt5": {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "longt5": {**T5, "local_radius": 4, "global_block_size": 3},
    "whisper": {
        **{"d_model": 24, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 3},
        **{"decoder_attention_heads": 4, "encoder_ffn_dim": 40, "decoder_ffn_dim": 36, "num_mel_bins": 8},
        **{"max_source_positions": 12, "max_target_positions": 40, "vocab_size": 101, "pad_token_id": 3},
        **{"bos_token_id": 3, "eos_token_id": 2, "decoder_start_token_id": 4},
    },
    # Building it gives the decoder as many heads as the encoder has.
    "moonshine": {
        **{"hidden_size": 32, "intermediate_size": 40, "encoder_num_hidden_layers": 2, "decoder_num_hidden_layers": 3},
        **{"encoder_num_attention_heads": 4, "decoder_num_attention_heads": 4, "max_position_embeddings": 64},
        **{"vocab_size": 101, "pad_token_id": 2, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
    },
    "vision-encoder-decoder": {
        "encoder": {
            **{"model_type": "vit", "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3},
            **{"intermediate_size": 40, "image_size": 32, "patch_size": 8},
        },
        # Of another width, so that the encoder's states are projected.
        "decoder": {
            **{"model_type": "gpt2", "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "vocab_size": 97},
            **{"is_decoder": True, "add_cross_attention": True, "bos_token_id": 1, "eos_token_id": 2},
        },
        **{"decoder_start_token_id": 1, "pad_token_id": 0},
    },
}

DONUT_ENCODER: Final = {
    **{"model_type": "donut-swin", "image_size": [32, 48], "patch_size": 4, "embed_dim": 12, "depths": [1, 1]},
    **{"num_heads": [2, 2], "window_size": 4},
}
DONUT_DECODER: Final = {
    **{"model_type": "mbart", "d_model": 24, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 40},
    **{"vocab_size": 97, "max_position_embeddings": 64, "is_decoder": True, "add_cross_attention": True},
    **{"is_encoder_decoder": False, "scale_embedding": True, "add_final_layer_norm": True},
}
TROCR_DECODER: Final = {
    **{"model_type": "trocr", "d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 40},
    **{"vocab_size": 97, "max_position_embeddings": 64, "cross_attention_hidden_size": 24},
    **{"is_decoder": True, "add_cross_attention": True},
}

XLM_ROBERTA_DECODER: Final = {
    **{"model_type": "xlm-roberta", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"intermediate_size": 40, "vocab_size": 97, "max_position_embeddings": 66, "pad_token_id": 1},
    **{"is_decoder": True, "add_cross_attention": True},
}

VARIANTS: Final = (
    # Two vocabularies, of which the decoder's is the smaller one.
    (
        "marian",
        "seq2seq-lm-with-past",
        {
            "decoder_vocab_size": 87,
            "share_encoder_decoder_embeddings": False,
            "tie_word_embeddings": False,
            "pad_token_id": 80,
            "decoder_start_token_id": 80,
        },
    ),
    ("t5", "seq2seq-lm-with-past", {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    # Local blocks of 5 tokens, and sums of 3: shorter inputs have none of either.
    ("longt5", "seq2seq-lm-with-past", {"encoder_attention_type": "transient-global"}),
    ("vision-encoder-decoder", "vision2seq-lm", {"encoder": DONUT_ENCODER, "decoder": DONUT_DECODER}),
    ("vision-encoder-decoder", "vision2seq-lm", {"decoder": TROCR_DECODER}),
    ("vision-encoder-decoder", "vision2seq-lm-with-past", {"encoder": DONUT_ENCODER, "decoder": DONUT_DECODER}),
    ("vision-encoder-decoder", "vision2seq-lm-with-past", {"decoder": XLM_ROBERTA_DECODER}),
)
