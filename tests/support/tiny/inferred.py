"""Architectures that no file of hfexport describes: their interface is inferred from the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tiny.decoders import LLAMA
from tiny.encoders import TEXT

_IMAGE: Final[Mapping[str, Any]] = {
    **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48},
    **{"image_size": 32, "patch_size": 8},
}
_CLIP: Final[Mapping[str, Any]] = {**_IMAGE, "projection_dim": 24}
_SOUND: Final[Mapping[str, Any]] = {
    **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 31},
    **{"conv_dim": [16, 16], "conv_stride": [5, 4], "conv_kernel": [10, 8], "num_feat_extract_layers": 2},
    **{"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "pad_token_id": 0},
}
_SPECTROGRAM: Final[Mapping[str, Any]] = {
    **{"spec_size": 64, "num_mel_bins": 16, "window_size": 4, "patch_size": 4, "patch_stride": [4, 4]},
    **{"patch_embeds_hidden_size": 8, "hidden_size": 16, "depths": [1, 1], "num_attention_heads": [2, 2]},
    **{"projection_dim": 16, "enable_fusion": False},
}
_RESNET: Final[Mapping[str, Any]] = {
    **{"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
    **{"out_features": ["stage1", "stage2", "stage3", "stage4"]},
}
_STATES: Final[Mapping[str, Any]] = {
    **{"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "vocab_size": 101, "time_step_rank": 4},
}
_SERIES: Final[Mapping[str, Any]] = {
    **{"context_length": 32, "num_input_channels": 3, "prediction_length": 8, "patch_length": 8, "d_model": 16},
}
_FORECAST: Final[Mapping[str, Any]] = {
    **{"prediction_length": 4, "context_length": 8, "lags_sequence": [1, 2], "num_time_features": 2, "d_model": 16},
    **{"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16},
    **{"num_static_categorical_features": 2, "cardinality": [5, 7], "num_static_real_features": 1},
}

_TWO_STREAMS: Final[Mapping[str, Any]] = {
    **{"vocab_size": 101, "hidden_size": 32, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "num_buckets": 8},
    **{"num_encoder_layers": 2, "num_decoder_layers": 2, "num_encoder_attention_heads": 4},
    **{"num_decoder_attention_heads": 4, "max_position_embeddings": 64, "ngram": 2, "relative_max_distance": 32},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
}

_TRANSLATION: Final[Mapping[str, Any]] = {
    **{"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "vocab_size": 101},
    **{"decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "decoder_start_token_id": 2},
    **{"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
}

INFERRED: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    # Encoders of text
    "modernbert": ("ModernBertForMaskedLM", {**TEXT, "local_attention": 8, "global_attn_every_n_layers": 2}),
    "mpnet": ("MPNetForMaskedLM", {**TEXT, "max_position_embeddings": 66, "pad_token_id": 1}),
    "nomic_bert": ("NomicBertModel", TEXT),
    "ernie": ("ErnieForSequenceClassification", TEXT),
    "luke": ("LukeForMaskedLM", {**TEXT, "entity_vocab_size": 11, "entity_emb_size": 16, "pad_token_id": 1}),
    "canine": (
        "CanineForTokenClassification",
        {**TEXT, "num_hash_buckets": 64, "max_position_embeddings": 64, "local_transformer_stride": 16},
    ),
    # Encoder-decoders
    "prophetnet": ("ProphetNetForConditionalGeneration", _TWO_STREAMS),
    "led": (
        "LEDForConditionalGeneration",
        {
            **{**_TRANSLATION, "attention_window": [8, 8], "max_encoder_position_embeddings": 64},
            "max_decoder_position_embeddings": 48,
        },
    ),
    "nllb-moe": (
        "NllbMoeForConditionalGeneration",
        {
            **{**_TRANSLATION, "num_experts": 4, "encoder_sparse_step": 2, "decoder_sparse_step": 2},
            "max_position_embeddings": 64,
        },
    ),
    "switch_transformers": (
        "SwitchTransformersForConditionalGeneration",
        {
            **{"vocab_size": 101, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_decoder_layers": 2},
            **{"num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1, "num_heads": 4, "num_experts": 4},
            "decoder_start_token_id": 0,
        },
    ),
    # Decoders
    "mistral": ("MistralForCausalLM", {**LLAMA, "sliding_window": 12}),
    "mixtral": ("MixtralForCausalLM", {**LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2": ("Qwen2ForCausalLM", LLAMA),
    "deepseek_v3": (
        "DeepseekV3ForCausalLM",
        {
            **{**LLAMA, "num_hidden_layers": 3, "num_key_value_heads": 4, "n_routed_experts": 8, "n_group": 2},
            **{"num_experts_per_tok": 2, "moe_intermediate_size": 16, "first_k_dense_replace": 1, "topk_group": 1},
            **{"kv_lora_rank": 8, "q_lora_rank": 12, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8},
        },
    ),
    "gemma": ("GemmaForCausalLM", {**LLAMA, "head_dim": 8}),
    "gemma2": ("Gemma2ForCausalLM", {**LLAMA, "head_dim": 8, "sliding_window": 12}),
    "gemma3_text": ("Gemma3ForCausalLM", {**LLAMA, "head_dim": 8, "sliding_window": 12, "layer_types": None}),
    "phi3": (
        "Phi3ForCausalLM",
        {
            **{**LLAMA, "max_position_embeddings": 80, "original_max_position_embeddings": 24, "pad_token_id": 0},
            "rope_parameters": {
                **{"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 24},
                **{"short_factor": [1.0, 1.2, 1.5, 1.7], "long_factor": [1.0, 2.0, 5.0, 9.0]},
            },
        },
    ),
    "falcon": ("FalconForCausalLM", {**LLAMA, "new_decoder_architecture": False, "alibi": False}),
    "olmo": ("OlmoForCausalLM", LLAMA),
    "granite": ("GraniteForCausalLM", LLAMA),
    "smollm3": ("SmolLM3ForCausalLM", LLAMA),
    "opt": (
        "OPTForCausalLM",
        {
            **{"hidden_size": 32, "word_embed_proj_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
            **{"ffn_dim": 48, "vocab_size": 101, "max_position_embeddings": 64, "pad_token_id": 1},
        },
    ),
    "gpt_neox": ("GPTNeoXForCausalLM", {**LLAMA, "num_key_value_heads": 4}),
    "stablelm": ("StableLmForCausalLM", LLAMA),
    "starcoder2": ("Starcoder2ForCausalLM", {**LLAMA, "sliding_window": None}),
    "mamba": ("MambaForCausalLM", _STATES),
    "falcon_mamba": ("FalconMambaForCausalLM", _STATES),
    "jamba": (
        "JambaForCausalLM",
        {
            **{**LLAMA, "num_hidden_layers": 4, "mamba_d_state": 8, "mamba_dt_rank": 4, "attn_layer_period": 2},
            **{"attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1, "num_experts": 4},
        },
    ),
    "blip_text_model": ("BlipTextModel", {**TEXT, "encoder_hidden_size": 32}),
    "clap_text_model": ("ClapTextModelWithProjection", {**TEXT, "projection_dim": 16}),
    # Images
    "blip": (
        "BlipForImageTextRetrieval",
        {
            "text_config": {**TEXT, "encoder_hidden_size": 32, "projection_dim": 16},
            **{"vision_config": _IMAGE, "projection_dim": 16, "image_text_hidden_size": 16},
        },
    ),
    "blip_vision_model": ("BlipVisionModel", _IMAGE),
    "rt_detr": (
        "RTDetrForObjectDetection",
        {
            "backbone_config": {
                **{"model_type": "rt_detr_resnet", "embedding_size": 8, "hidden_sizes": [8, 16, 24, 32]},
                **{"depths": [1, 1, 1, 1], "layer_type": "basic", "out_features": ["stage2", "stage3", "stage4"]},
            },
            **{"encoder_hidden_dim": 32, "encoder_in_channels": [16, 24, 32], "encoder_ffn_dim": 48},
            **{"encoder_attention_heads": 4, "d_model": 32, "num_queries": 10, "decoder_in_channels": [32, 32, 32]},
            **{"decoder_ffn_dim": 48, "decoder_layers": 2, "decoder_attention_heads": 4, "num_denoising": 0},
        },
    ),
    "dinov2": ("Dinov2ForImageClassification", {**_IMAGE, "mlp_ratio": 2}),
    "siglip": ("SiglipModel", {"text_config": {**TEXT, "projection_size": 32}, "vision_config": _IMAGE}),
    "siglip_vision_model": ("SiglipVisionModel", _IMAGE),
    "clip_text_model": ("CLIPTextModelWithProjection", {**TEXT, "projection_dim": 24, "eos_token_id": 2}),
    "clip_vision_model": ("CLIPVisionModelWithProjection", _CLIP),
    "depth_anything": (
        "DepthAnythingForDepthEstimation",
        {
            "backbone_config": {
                **{"model_type": "dinov2", **_IMAGE, "mlp_ratio": 2, "reshape_hidden_states": False},
                **{"out_features": ["stage1", "stage2"], "apply_layernorm": True},
            },
            **{"patch_size": 8, "reassemble_hidden_size": 32, "neck_hidden_sizes": [8, 16], "fusion_hidden_size": 16},
            **{"reassemble_factors": [2, 1], "head_hidden_size": 8},
        },
    ),
    "sam_vision_model": (
        "SamVisionModel",
        {**_IMAGE, "mlp_dim": 48, "output_channels": 16, "window_size": 2, "global_attn_indexes": [1]},
    ),
    "upernet": (
        "UperNetForSemanticSegmentation",
        {"backbone_config": _RESNET, "hidden_size": 16, "pool_scales": [1, 2], "auxiliary_in_channels": 24},
    ),
    "vitmatte": (
        "VitMatteForImageMatting",
        {
            "backbone_config": {
                **{"model_type": "vitdet", **_IMAGE, "num_channels": 4, "out_features": ["stage2"]},
                **{"pretrain_image_size": 32, "mlp_ratio": 2, "patch_size": 16},
            },
            **{"hidden_size": 32, "fusion_hidden_sizes": [16, 8, 4, 4], "convstream_hidden_sizes": [8, 8, 8]},
        },
    ),
    # Images with text
    "florence2": (
        "Florence2ForConditionalGeneration",
        {
            "text_config": {
                **{"model_type": "bart", "d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "vocab_size": 101},
                **{"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48},
                **{"decoder_ffn_dim": 48, "max_position_embeddings": 96},
            },
            "vision_config": {
                **{"embed_dim": [16, 16, 32, 32], "num_heads": [2, 2, 4, 4], "num_groups": [2, 2, 4, 4]},
                **{"depths": [1, 1, 1, 1], "window_size": 2, "projection_dim": 32},
            },
            "image_token_id": 90,
        },
    ),
    # Videos
    "vivit": ("VivitForVideoClassification", {**_IMAGE, "num_frames": 4, "tubelet_size": [2, 16, 16]}),
    "videomae": ("VideoMAEForVideoClassification", {**_IMAGE, "num_frames": 4}),
    "timesformer": ("TimesformerForVideoClassification", {**_IMAGE, "num_frames": 4}),
    # Sound
    "clap": (
        "ClapModel",
        {"text_config": {**TEXT, "projection_dim": 16}, "audio_config": _SPECTROGRAM, "projection_dim": 16},
    ),
    "clap_audio_model": ("ClapAudioModelWithProjection", _SPECTROGRAM),
    "wav2vec2": ("Wav2Vec2ForCTC", _SOUND),
    "hubert": ("HubertForCTC", _SOUND),
    "wavlm": ("WavLMForCTC", {**_SOUND, "num_buckets": 16, "max_bucket_distance": 32}),
    "speecht5": (
        "SpeechT5ForSpeechToText",
        {
            **{"hidden_size": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4},
            **{"decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "vocab_size": 41},
            **{"conv_dim": [16, 16], "conv_stride": [5, 4], "conv_kernel": [10, 8], "num_conv_pos_embeddings": 8},
            **{"num_conv_pos_embedding_groups": 2},
        },
    ),
    "encodec": (
        "EncodecModel",
        {
            **{"num_filters": 4, "hidden_size": 16, "codebook_dim": 16, "codebook_size": 16, "num_lstm_layers": 1},
            **{"upsampling_ratios": [4, 2], "target_bandwidths": [6.0, 12.0]},
        },
    ),
    # Time series
    "patchtst": ("PatchTSTForPrediction", {**_SERIES, "patch_stride": 8, "num_attention_heads": 4, "ffn_dim": 32}),
    "patchtsmixer": ("PatchTSMixerForPrediction", {**_SERIES, "patch_stride": 8}),
    "time_series_transformer": ("TimeSeriesTransformerForPrediction", {**_FORECAST, "input_size": 2}),
    "autoformer": ("AutoformerForPrediction", {**_FORECAST, "label_length": 4}),
}
"""By `model_type`: the class of transformers that saves the model, and the arguments of its config class."""

MISSES: Final[Mapping[str, tuple[str, Mapping[str, Any], tuple[str, str]]]] = {
    "informer": (
        "InformerForPrediction",
        {**_FORECAST, "context_length": 32},
        (
            "It attends to keys that it draws at random, so its own answers differ from call to call.",
            "two runs of the model on the same inputs give different values",
        ),
    ),
    "pix2struct": (
        "Pix2StructForConditionalGeneration",
        {
            "text_config": {
                **{"vocab_size": 101, "hidden_size": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
                **{"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0},
            },
            "vision_config": {**_IMAGE, "patch_embed_hidden_size": 32, "d_ff": 48, "d_kv": 8, "seq_len": 64},
        },
        (
            "Its images come as flattened patches that begin with row and column numbers, which hfexport cannot draw.",
            "nothing is known of its main input flattened_patches",
        ),
    ),
    "smolvlm": (
        "SmolVLMForConditionalGeneration",
        {
            "text_config": {"model_type": "llama", **LLAMA},
            **{"vision_config": _IMAGE, "image_token_id": 5, "scale_factor": 2},
        },
        (
            "Its images come as lists of tiles with a mask of pixels. Its text model alone is a llama, which is exported.",
            "not enough values to unpack (expected 5, got 4)",
        ),
    ),
}
"""By `model_type`, what is known not to be exported: class, config, and why, with what the error says of it."""

CONFIGS: Final[Mapping[str, Mapping[str, Any]]] = {}
VARIANTS: Final = ()
