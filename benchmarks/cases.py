"""Checkpoints that the benchmarks export, and the name of each one's task in every contender's terms."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from example import EXAMPLE_MODEL

__all__ = ["CASES", "Architecture", "Case", "checkpoint", "with_pickled_weights"]

BUILDER: Final = Path(__file__).with_name("build_checkpoint.py")


@dataclass(frozen=True)
class Architecture:
    """What `build_checkpoint.py` makes a seeded checkpoint from.

    Attributes:
        model: class of transformers; its weights are random.
        config: class of its config.
        sizes: arguments of the config.
        dtype: dtype of the weights.
        max_shard_size: largest size of a weight file.
        tokenizer: whether to add a tokenizer, which `transformers.onnx` makes its sample inputs with.
        feature_extractor: whether to add a feature extractor of Whisper, for the same.
    """

    model: str
    config: str
    sizes: Mapping[str, int | str | bool] = field(default_factory=dict)
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    max_shard_size: str = "50GB"
    tokenizer: bool = True
    feature_extractor: bool = False


@dataclass(frozen=True)
class Case:
    """One checkpoint and task.

    Attributes:
        name: name in `--cases`.
        title: heading of its table.
        architecture: how to build the checkpoint, or `None` for the installed all-MiniLM-L6-v2.
        feature: task in the terms of hfexport and `transformers.onnx`.
        optimum_task: task in the terms of `optimum-cli`.
        generates: whether `transformers.exporters` exports it with `export_for_generation`.
        opset: opset that `transformers.onnx` needs, if its default is too low.
    """

    name: str
    title: str
    architecture: Architecture | None
    feature: str
    optimum_task: str
    generates: bool = False
    opset: int | None = None


_LLAMA_125M: Final = Architecture(
    "LlamaForCausalLM",
    "LlamaConfig",
    {
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_key_value_heads": 12,
        "vocab_size": 32000,
        "max_position_embeddings": 2048,
    },
)
_LLAMA_1_1B: Final = Architecture(
    "LlamaForCausalLM",
    "LlamaConfig",
    {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "vocab_size": 32000,
        "max_position_embeddings": 2048,
    },
    dtype="bfloat16",
    max_shard_size="500MB",
)
_WHISPER_TINY: Final = Architecture(
    "WhisperForConditionalGeneration",
    "WhisperConfig",
    {
        "d_model": 384,
        "encoder_layers": 4,
        "decoder_layers": 4,
        "encoder_attention_heads": 6,
        "decoder_attention_heads": 6,
        "encoder_ffn_dim": 1536,
        "decoder_ffn_dim": 1536,
    },
    feature_extractor=True,
)

CASES: Final = (
    Case(
        "bert-base",
        "bert-base, sequence classification, 110 M parameters",
        Architecture("BertForSequenceClassification", "BertConfig", {"num_labels": 2}),
        "sequence-classification",
        "text-classification",
    ),
    Case("minilm", "all-MiniLM-L6-v2, 22 M parameters", None, "default", "feature-extraction"),
    Case(
        "llama-125m",
        "llama with past, 134 M parameters",
        _LLAMA_125M,
        "causal-lm-with-past",
        "text-generation-with-past",
        generates=True,
    ),
    Case(
        "gpt2",
        "gpt2 with past, 124 M parameters",
        Architecture("GPT2LMHeadModel", "GPT2Config"),
        "causal-lm-with-past",
        "text-generation-with-past",
        generates=True,
    ),
    Case(
        "llama-1.1b",
        "llama with past, bfloat16 widened to float32, 1.1 billion parameters",
        _LLAMA_1_1B,
        "causal-lm-with-past",
        "text-generation-with-past",
        generates=True,
    ),
    Case(
        "whisper-tiny",
        "Whisper at the size of whisper-tiny, with past, 38 M parameters",
        _WHISPER_TINY,
        "speech2seq-lm-with-past",
        "automatic-speech-recognition-with-past",
        generates=True,
        opset=14,
    ),
)
"""All cases, in the order in which they are measured: the most important first."""


def checkpoint(architecture: Architecture | None, folder: Path) -> Path:
    """Return the folder of a checkpoint, which is built under `folder` on first use."""
    if architecture is None:
        return EXAMPLE_MODEL
    if not (folder / "config.json").exists():
        recipe = json.dumps({**vars(architecture), "sizes": dict(architecture.sizes)})
        subprocess.run([sys.executable, str(BUILDER), "build", recipe, str(folder)], check=True)
    return folder


def with_pickled_weights(source: Path, folder: Path) -> Path:
    """Return a copy of a checkpoint in `folder` whose weights are in pytorch_model.bin: older loaders read only that."""
    if not (folder / "config.json").exists():
        subprocess.run([sys.executable, str(BUILDER), "pickle", str(source), str(folder)], check=True)
    return folder
