"""Writes tiny TensorFlow checkpoints, each with the answers that its own TensorFlow class gives.

Needs an environment of its own, apart from hfexport's (TensorFlow's last release with these classes):

    python3.11 -m venv .venv-tensorflow
    .venv-tensorflow/bin/python -m pip install tensorflow-cpu==2.15.1 transformers==4.44.2 "numpy<2" safetensors
    .venv-tensorflow/bin/python tests/support/tf/make_checkpoints.py             # those that are committed
    .venv-tensorflow/bin/python tests/support/tf/make_checkpoints.py --all OUT   # every head of every family
    .venv-tensorflow/bin/python tests/support/tf/make_checkpoints.py --all OUT TFBertModel TFXLMModel

`reference.npz` holds `input.<name>` (what the model was called with) and `output.<name>` (its answer, float32). All
weights are redrawn wide apart, biases and norms included, so that a kernel that is turned the wrong way, a forgotten
bias or two weights in each other's place show.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="", HF_HUB_OFFLINE="1")

import numpy as np
import tensorflow as tf
import transformers

COMMITTED = Path(__file__).parent / "checkpoints"

Inputs = dict[str, np.ndarray]

VOCABULARY = 60
MASK = np.array([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0]], dtype=np.int32)


@dataclass(frozen=True)
class Family:
    """The classes of one architecture that share a config.

    Attributes:
        config: name of the config class.
        values: what it is made with.
        inputs: draws what a model is called with.
        classes: TensorFlow classes; the first few stand for all.
        committed: how many of `classes` have their checkpoint in the repository.
    """

    config: str
    values: Mapping[str, Any]
    inputs: Callable[[np.random.Generator], Inputs]
    classes: tuple[str, ...]
    committed: int = 1


def _ids(rng: np.random.Generator, length: int = 7) -> np.ndarray:
    return rng.integers(5, VOCABULARY, size=(2, length)).astype(np.int32)


def _text(pad: int = 0, *, types: bool = False) -> Callable[[np.random.Generator], Inputs]:
    def draw(rng: np.random.Generator) -> Inputs:
        given = {"input_ids": np.where(MASK == 1, _ids(rng), pad).astype(np.int32), "attention_mask": MASK}
        if types:
            given["token_type_ids"] = np.array([[0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 0, 0, 0]], dtype=np.int32)
        return given

    return draw


def _boxes(rng: np.random.Generator, length: int) -> np.ndarray:
    low, high = rng.integers(0, 20, size=(2, length, 2)), rng.integers(20, 40, size=(2, length, 2))
    return np.concatenate([low, high], axis=-1).astype(np.int32)


def _layout(rng: np.random.Generator) -> Inputs:
    return {**_text(types=True)(rng), "bbox": _boxes(rng, 7)}


def _layout_with_image(rng: np.random.Generator) -> Inputs:
    return {**_text(1)(rng), "bbox": _boxes(rng, 7), **_image(32)(rng)}


def _seq2seq(pad: int, start: int) -> Callable[[np.random.Generator], Inputs]:
    def draw(rng: np.random.Generator) -> Inputs:
        decoder = _ids(rng, 5)
        decoder[:, 0] = start
        return {**_text(pad)(rng), "decoder_input_ids": decoder}

    return draw


def _bart_classification(rng: np.random.Generator) -> Inputs:
    given = _text(1)(rng)
    given["input_ids"][:, 6] = given["input_ids"][:, 3] = 2  # as many end tokens in each row, which the head looks for
    given["input_ids"][:, 6] = 2
    return {"input_ids": given["input_ids"], "attention_mask": np.ones_like(MASK)}


def _image(size: int) -> Callable[[np.random.Generator], Inputs]:
    return lambda rng: {"pixel_values": rng.standard_normal((2, 3, size, size)).astype(np.float32)}


def _captioned(rng: np.random.Generator) -> Inputs:
    decoder = _ids(rng, 5)
    decoder[:, 0] = 2
    return {**_image(32)(rng), "decoder_input_ids": decoder}


def _longformer(rng: np.random.Generator) -> Inputs:
    given = _text(1)(rng)
    given["input_ids"][:, 1:4] = 2  # the separators from which global attention is told
    return given


def _longformer_choices(rng: np.random.Generator) -> Inputs:
    """With the tokens of global attention given: left to itself, TensorFlow's class has none, PyTorch's has some."""
    given = _longformer(rng)
    return {**given, "global_attention_mask": np.where(np.arange(7) < 3, MASK, 0).astype(np.int32)}


def _image_and_text(size: int) -> Callable[[np.random.Generator], Inputs]:
    def draw(rng: np.random.Generator) -> Inputs:
        given = _text()(rng)
        given["input_ids"][:, 3] = VOCABULARY - 1  # the end token, where CLIP's text model pools
        return {**given, **_image(size)(rng)}

    return draw


def _clip_text(rng: np.random.Generator) -> Inputs:
    given = _image_and_text(32)(rng)
    return {"input_ids": given["input_ids"], "attention_mask": given["attention_mask"]}


def _speech(features: str, shape: tuple[int, ...]) -> Callable[[np.random.Generator], Inputs]:
    def draw(rng: np.random.Generator) -> Inputs:
        decoder = _ids(rng, 5)
        decoder[:, 0] = 2
        return {features: rng.standard_normal((2, *shape)).astype(np.float32), "decoder_input_ids": decoder}

    return draw


SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
TEXT = {**SIZES, "vocab_size": VOCABULARY, "max_position_embeddings": 20}
ROBERTA = {**TEXT, "type_vocab_size": 1, "pad_token_id": 1}
VISION = {**SIZES, "image_size": 32, "patch_size": 8}
STAGES = {"hidden_sizes": [8, 12, 16, 20], "depths": [1, 2, 1, 1]}
SEQ2SEQ = {
    **{"vocab_size": VOCABULARY, "d_model": 16, "max_position_embeddings": 20},
    **{"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2},
    **{"encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "eos_token_id": 2, "decoder_start_token_id": 2},
}
T5 = {
    **{"vocab_size": VOCABULARY, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2},
    **{"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1},
}
GPT = {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 20}
XLM = {
    **{"vocab_size": VOCABULARY, "emb_dim": 16, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 20},
    **{"pad_token_id": 2, "n_langs": 1, "use_lang_emb": False},
}


def _heads(stem: str, *heads: str) -> tuple[str, ...]:
    return tuple(f"TF{stem}{head}" for head in heads)


HEADS = (
    *("ForMaskedLM", "ForSequenceClassification", "ForTokenClassification"),
    *("ForQuestionAnswering", "ForMultipleChoice", "Model"),
)

FAMILIES = (
    Family(
        "AlbertConfig", {**TEXT, "embedding_size": 12}, _text(types=True), _heads("Albert", *HEADS, "ForPreTraining")
    ),
    Family(
        "BartConfig",
        {**SEQ2SEQ, "pad_token_id": 1},
        _seq2seq(1, 2),
        _heads("Bart", "ForConditionalGeneration", "Model"),
    ),
    Family(
        "BartConfig", {**SEQ2SEQ, "pad_token_id": 1}, _bart_classification, _heads("Bart", "ForSequenceClassification")
    ),
    Family(
        "BertConfig",
        TEXT,
        _text(types=True),
        _heads("Bert", *HEADS, "ForPreTraining", "LMHeadModel", "ForNextSentencePrediction"),
        committed=2,
    ),
    Family(
        "BlenderbotConfig",
        {**SEQ2SEQ, "pad_token_id": 0},
        _seq2seq(0, 2),
        _heads("Blenderbot", "ForConditionalGeneration", "Model"),
    ),
    Family(
        "BlenderbotSmallConfig",
        {**SEQ2SEQ, "pad_token_id": 0},
        _seq2seq(0, 2),
        _heads("BlenderbotSmall", "ForConditionalGeneration", "Model"),
    ),
    Family("CamembertConfig", ROBERTA, _text(1), _heads("Camembert", *HEADS, "ForCausalLM")),
    Family(
        "CLIPConfig",
        {
            "text_config": {**TEXT, "eos_token_id": VOCABULARY - 1},
            "vision_config": {**VISION, "projection_dim": 12},
            "projection_dim": 12,
        },
        _image_and_text(32),
        ("TFCLIPModel",),
    ),
    Family("CLIPTextConfig", {**TEXT, "eos_token_id": VOCABULARY - 1}, _clip_text, ("TFCLIPTextModel",), committed=0),
    Family("CLIPVisionConfig", VISION, _image(32), ("TFCLIPVisionModel",), committed=0),
    Family(
        "ConvBertConfig",
        {**TEXT, "num_attention_heads": 4, "embedding_size": 12, "conv_kernel_size": 3, "head_ratio": 2},
        _text(types=True),
        _heads("ConvBert", *HEADS),
    ),
    Family(
        "ConvBertConfig",
        {
            **TEXT,
            "num_attention_heads": 4,
            "embedding_size": 16,
            "conv_kernel_size": 3,
            "head_ratio": 2,
            "num_groups": 2,
        },
        _text(types=True),
        ("TFConvBertForSequenceClassification-grouped",),
        committed=0,
    ),
    Family(
        "ConvNextConfig",
        {**STAGES, "image_size": 64},
        _image(64),
        _heads("ConvNext", "ForImageClassification", "Model"),
    ),
    Family(
        "ConvNextV2Config",
        {**STAGES, "image_size": 64},
        _image(64),
        _heads("ConvNextV2", "ForImageClassification", "Model"),
    ),
    Family(
        "Data2VecVisionConfig",
        {**VISION, "use_relative_position_bias": True, "use_mask_token": True, "layer_scale_init_value": 0.1},
        _image(32),
        _heads("Data2VecVision", "ForImageClassification", "Model"),
    ),
    Family(
        "Data2VecVisionConfig",
        {**VISION, "use_shared_relative_position_bias": True, "use_absolute_position_embeddings": True},
        _image(32),
        ("TFData2VecVisionForImageClassification-shared-bias",),
        committed=0,
    ),
    Family(
        "Data2VecVisionConfig",
        {**VISION, "num_hidden_layers": 4, "out_indices": [0, 1, 2, 3], "auxiliary_channels": 8},
        _image(32),
        ("TFData2VecVisionForSemanticSegmentation",),
    ),
    Family(
        "DebertaConfig",
        {
            **TEXT,
            "relative_attention": True,
            "pos_att_type": ["c2p", "p2c"],
            "max_relative_positions": 8,
            "type_vocab_size": 0,
        },
        _text(),
        _heads(
            "Deberta",
            "ForMaskedLM",
            "ForSequenceClassification",
            "ForTokenClassification",
            "ForQuestionAnswering",
            "Model",
        ),
    ),
    Family(
        "DebertaV2Config",
        {
            **{**TEXT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8},
            **{
                "norm_rel_ebd": "layer_norm",
                "share_att_key": True,
                "position_biased_input": False,
                "type_vocab_size": 0,
            },
        },
        _text(),
        _heads("DebertaV2", *HEADS),
    ),
    Family(
        "DebertaV2Config",
        {
            **{**TEXT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "type_vocab_size": 2},
            **{"conv_kernel_size": 3, "conv_act": "gelu", "embedding_size": 16},
        },
        _text(types=True),
        ("TFDebertaV2ForSequenceClassification-convolution",),
        committed=0,
    ),
    Family(
        "DeiTConfig",
        VISION,
        _image(32),
        _heads("DeiT", "ForImageClassificationWithTeacher", "ForImageClassification", "Model"),
    ),
    Family("DeiTConfig", {**VISION, "encoder_stride": 8}, _image(32), ("TFDeiTForMaskedImageModeling",)),
    Family(
        "DistilBertConfig",
        {
            **{"vocab_size": VOCABULARY, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
            "max_position_embeddings": 20,
        },
        _text(),
        _heads(
            "DistilBert", "ForMaskedLM", "ForQuestionAnswering", *(head for head in HEADS[1:] if "Question" not in head)
        ),
        committed=2,
    ),
    Family(
        "ElectraConfig",
        {**TEXT, "embedding_size": 12},
        _text(types=True),
        _heads("Electra", *HEADS, "ForPreTraining"),
    ),
    Family(
        "FlaubertConfig",
        XLM,
        _text(2),
        _heads(
            "Flaubert",
            *("WithLMHeadModel", "ForSequenceClassification", "ForTokenClassification"),
            *("ForQuestionAnsweringSimple", "ForMultipleChoice", "Model"),
        ),
    ),
    Family(
        "GPT2Config",
        {**GPT, "pad_token_id": 0},
        _text(),
        _heads("GPT2", "LMHeadModel", "ForSequenceClassification", "Model"),
    ),
    Family(
        "GPTJConfig",
        {**GPT, "rotary_dim": 4, "pad_token_id": 0},
        _text(),
        _heads("GPTJ", "ForCausalLM", "ForSequenceClassification", "ForQuestionAnswering", "Model"),
    ),
    Family(
        "GroupViTConfig",
        {
            "text_config": {**TEXT, "eos_token_id": VOCABULARY - 1},
            "vision_config": {
                **{**VISION, "depths": [1, 1, 1], "num_group_tokens": [6, 4, 0], "num_output_groups": [6, 4, 0]},
                "num_hidden_layers": 3,
            },
            "projection_dim": 12,
            "projection_intermediate_dim": 24,
        },
        _image_and_text(32),
        ("TFGroupViTModel",),
    ),
    Family(
        "LayoutLMConfig",
        {**TEXT, "max_2d_position_embeddings": 40},
        _layout,
        _heads(
            "LayoutLM",
            "ForMaskedLM",
            "ForSequenceClassification",
            "ForTokenClassification",
            "ForQuestionAnswering",
            "Model",
        ),
    ),
    Family(
        "LayoutLMv3Config",
        {
            **{
                **TEXT,
                "max_position_embeddings": 32,
                "max_2d_position_embeddings": 64,
                "coordinate_size": 3,
                "shape_size": 2,
            },
            **{"input_size": 32, "patch_size": 8, "pad_token_id": 1, "type_vocab_size": 1},
            **{"max_rel_pos": 16, "max_rel_2d_pos": 32, "rel_pos_bins": 8, "rel_2d_pos_bins": 8},
        },
        _layout_with_image,
        _heads("LayoutLMv3", "ForTokenClassification", "ForSequenceClassification", "ForQuestionAnswering", "Model"),
    ),
    Family(
        "LongformerConfig",
        {**ROBERTA, "attention_window": [4, 4]},
        _longformer,
        _heads("Longformer", *(head for head in HEADS if head != "ForMultipleChoice")),
    ),
    Family(
        "LongformerConfig",
        {**ROBERTA, "attention_window": [4, 4]},
        _longformer_choices,
        ("TFLongformerForMultipleChoice",),
    ),
    Family(
        "MarianConfig",
        {**SEQ2SEQ, "pad_token_id": 59, "eos_token_id": 0, "decoder_start_token_id": 59},
        _seq2seq(59, 59),
        ("TFMarianMTModel", "TFMarianModel"),
    ),
    Family(
        "MBartConfig",
        {**SEQ2SEQ, "pad_token_id": 1},
        _seq2seq(1, 2),
        _heads("MBart", "ForConditionalGeneration", "Model"),
    ),
    Family(
        "MobileBertConfig",
        {**TEXT, "embedding_size": 8, "intra_bottleneck_size": 8, "true_hidden_size": 8, "num_feedforward_networks": 2},
        _text(types=True),
        _heads("MobileBert", *HEADS, "ForPreTraining", "ForNextSentencePrediction"),
    ),
    Family(
        "MobileViTConfig",
        {
            **{"hidden_sizes": [8, 8, 8], "neck_hidden_sizes": [4, 4, 8, 8, 8, 8, 12], "image_size": 32},
            **{"num_attention_heads": 2, "aspp_out_channels": 8, "expand_ratio": 1.0},
        },
        _image(32),
        _heads("MobileViT", "ForImageClassification", "ForSemanticSegmentation", "Model"),
    ),
    Family("MPNetConfig", {**TEXT, "pad_token_id": 1}, _text(1), _heads("MPNet", *HEADS)),
    Family(
        "MT5Config",
        {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        _seq2seq(0, 0),
        _heads("MT5", "ForConditionalGeneration", "Model"),
    ),
    Family(
        "RegNetConfig",
        {**STAGES, "embedding_size": 8, "groups_width": 4, "layer_type": "y"},
        _image(64),
        _heads("RegNet", "ForImageClassification", "Model"),
    ),
    Family(
        "RemBertConfig",
        {**TEXT, "input_embedding_size": 12, "output_embedding_size": 20},
        _text(types=True),
        _heads("RemBert", *HEADS, "ForCausalLM"),
    ),
    Family(
        "ResNetConfig",
        {**STAGES, "embedding_size": 8, "layer_type": "bottleneck"},
        _image(64),
        _heads("ResNet", "ForImageClassification", "Model"),
    ),
    Family(
        "RobertaConfig",
        ROBERTA,
        _text(1),
        _heads("Roberta", "ForMaskedLM", "ForTokenClassification", *(head for head in HEADS[1:] if "Token" not in head))
        + _heads("Roberta", "ForCausalLM"),
        committed=2,
    ),
    Family(
        "RoFormerConfig", {**TEXT, "embedding_size": 12}, _text(types=True), _heads("RoFormer", *HEADS, "ForCausalLM")
    ),
    Family(
        "SegformerConfig",
        {
            **{"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 2]},
            **{"sr_ratios": [8, 4, 2, 1], "decoder_hidden_size": 12, "mlp_ratios": [2, 2, 2, 2]},
        },
        _image(64),
        _heads("Segformer", "ForSemanticSegmentation", "ForImageClassification", "Model"),
    ),
    Family(
        "Speech2TextConfig",
        {
            **{**SEQ2SEQ, "pad_token_id": 1, "max_source_positions": 40, "max_target_positions": 20},
            **{"input_feat_per_channel": 10, "conv_channels": 12, "num_conv_layers": 2},
        },
        _speech("input_features", (20, 10)),
        _heads("Speech2Text", "ForConditionalGeneration", "Model"),
    ),
    Family(
        "SwinConfig",
        {
            **{
                "embed_dim": 8,
                "depths": [1, 2],
                "num_heads": [2, 2],
                "window_size": 4,
                "image_size": 32,
                "patch_size": 2,
            },
            "encoder_stride": 4,
        },
        _image(32),
        _heads("Swin", "ForImageClassification", "Model"),
    ),
    Family("T5Config", T5, _seq2seq(0, 0), _heads("T5", "ForConditionalGeneration", "Model")),
    Family("T5Config", T5, _text(), ("TFT5EncoderModel",), committed=0),
    Family(
        "VisionEncoderDecoderConfig",
        {
            "encoder": {**VISION, "model_type": "vit"},
            "decoder": {**GPT, "model_type": "gpt2", "is_decoder": True, "add_cross_attention": True},
            **{"decoder_start_token_id": 2, "pad_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": True},
        },
        _captioned,
        ("TFVisionEncoderDecoderModel",),
    ),
    Family("ViTConfig", VISION, _image(32), _heads("ViT", "ForImageClassification", "Model")),
    Family(
        "WhisperConfig",
        {
            **{
                **SEQ2SEQ,
                "pad_token_id": 1,
                "max_source_positions": 10,
                "max_target_positions": 20,
                "num_mel_bins": 12,
            },
            **{"suppress_tokens": None, "begin_suppress_tokens": None},
        },
        _speech("input_features", (12, 20)),
        _heads("Whisper", "ForConditionalGeneration", "Model"),
    ),
    Family(
        "XLMConfig",
        XLM,
        _text(2, types=True),  # which it looks up among its words
        _heads(
            "XLM",
            *("WithLMHeadModel", "ForSequenceClassification", "ForTokenClassification"),
            *("ForQuestionAnsweringSimple", "ForMultipleChoice", "Model"),
        ),
    ),
    Family("XLMRobertaConfig", ROBERTA, _text(1), _heads("XLMRoberta", *HEADS, "ForCausalLM")),
)

SAVING: Mapping[str, Mapping[str, Any]] = {
    "TFBertForSequenceClassification-sharded": {"max_shard_size": "12KB"},
    "TFBertForSequenceClassification-safetensors": {"safe_serialization": True},
    "TFBertForSequenceClassification-safetensors-sharded": {"safe_serialization": True, "max_shard_size": "12KB"},
}
"""Other ways of writing a checkpoint, by its name."""

NOT_COMPARED = ("past_key_values", "hidden_states", "attentions", "loss", "model_output")


def redraw(model: Any, rng: np.random.Generator) -> None:
    """New values for every weight, by the role that its name tells."""
    for weight in model.weights:
        name, shape = weight.name.lower(), tuple(weight.shape)
        if not weight.dtype.is_floating:
            continue
        if "moving_variance" in name:
            new = rng.uniform(0.5, 1.5, shape)
        elif "moving_mean" in name:
            new = rng.normal(0, 0.3, shape)
        elif "gamma" in name or "norm/weight" in name or (len(shape) == 1 and name.endswith("/weight:0")):
            new = 1 + rng.normal(0, 0.2, shape)
        elif any(part in name for part in ("embed", "wte", "wpe", "shared")) and "kernel" not in name:
            new = rng.normal(0, 0.6, shape)
        elif len(shape) <= 1 or "bias" in name or "beta" in name:
            new = rng.normal(0, 0.2, shape)
        else:
            new = rng.normal(0, 1.2 / np.sqrt(np.prod(shape[:-1])), shape)
        # Rounded to half precision, so that a repository packs them into half the space.
        weight.assign(new.astype(np.float16).astype(weight.dtype.as_numpy_dtype))


def answer(model: Any, inputs: Inputs) -> dict[str, np.ndarray]:
    given = model({name: tf.constant(value) for name, value in inputs.items()}, training=False)
    return {
        name: np.asarray(value, dtype=np.float32)
        for name, value in given.items()
        if value is not None and not any(part in name for part in NOT_COMPARED)
    }


def write(name: str, family: Family, folder: Path) -> None:
    """Write one checkpoint and check that TensorFlow reads it back as it was."""
    seed = sum(map(ord, name))
    tf.keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    model_class = getattr(transformers, name.partition("-")[0])
    values = dict(family.values)
    if not name.endswith("Model"):
        values.setdefault("num_labels", 2 if "QuestionAnswering" in name else 3)
    model = model_class(getattr(transformers, family.config)(**values))
    inputs = family.inputs(rng)
    if "MultipleChoice" in name:
        inputs = {
            key: np.stack([value, value[:, ::-1] if key == "input_ids" else value], axis=1)
            for key, value in inputs.items()
        }
    answer(model, inputs)  # which makes the weights
    redraw(model, rng)
    wanted = answer(model, inputs)
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, **SAVING.get(name, {}))
    arrays = {f"input.{key}": value for key, value in inputs.items()} | {
        f"output.{key}": value for key, value in wanted.items()
    }
    np.savez_compressed(folder / "reference.npz", **arrays)
    given = answer(model_class.from_pretrained(folder), inputs)
    difference = max(float(np.abs(given[key] - value).max()) for key, value in wanted.items())
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert difference < 1e-6, f"{name}: TensorFlow reads back other weights than it wrote: off by {difference}"
    print(f"{name}: {size // 1024} KiB, {', '.join(sorted(wanted))}", flush=True)


def checkpoints(*, everything: bool) -> Iterator[tuple[str, Family]]:
    for family in FAMILIES:
        for number, name in enumerate(family.classes):
            if everything or number < family.committed:
                yield name, family
        if family.config == "BertConfig":
            yield from ((name, family) for name in SAVING)


def main() -> int:
    parser = argparse.ArgumentParser(description="Write tiny TensorFlow checkpoints with their answers.")
    parser.add_argument("--all", metavar="OUT", type=Path, help="every head of every family, into this folder")
    parser.add_argument("names", nargs="*", help="only these")
    arguments = parser.parse_args()
    failed = 0
    for name, family in checkpoints(everything=arguments.all is not None):
        if arguments.names and name not in arguments.names:
            continue
        try:
            write(name, family, (arguments.all or COMMITTED) / name)
        except Exception as error:  # noqa: BLE001 - one that fails should not keep the others from being written
            print(f"{name}: FAILED {type(error).__name__}: {str(error)[:300]}", flush=True)
            failed += 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
