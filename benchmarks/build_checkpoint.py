"""Build a seeded checkpoint, or copy one to pytorch_model.bin, in a process of its own.

python build_checkpoint.py build RECIPE FOLDER    # RECIPE: fields of `cases.Architecture` as JSON
python build_checkpoint.py pickle SOURCE FOLDER
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers


def build(recipe: dict[str, Any], folder: Path) -> None:
    """Save a model with random weights of seed 0, and the preprocessors that the recipe names."""
    config = getattr(transformers, recipe["config"])(**recipe["sizes"])
    torch.manual_seed(0)
    torch.set_default_dtype(getattr(torch, recipe["dtype"]))
    getattr(transformers, recipe["model"])(config).save_pretrained(folder, max_shard_size=recipe["max_shard_size"])
    if recipe["tokenizer"]:
        (add_speech_tokenizer if recipe["feature_extractor"] else add_tokenizer)(folder)
    if recipe["feature_extractor"]:
        transformers.WhisperFeatureExtractor(feature_size=config.num_mel_bins).save_pretrained(folder)


def add_tokenizer(folder: Path) -> None:
    """Write a word-level tokenizer in the form that every version of transformers since 4.44 reads."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "model"]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(words[:5])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
        "bos_token": "[CLS]",
        "eos_token": "[SEP]",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(names), encoding="utf-8")


def add_speech_tokenizer(folder: Path) -> None:
    """Write a tokenizer of Whisper whose tokens are bytes, in the files that its class reads in every version."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    # Bytes that do not print have the characters from 256 on, as in GPT-2.
    characters = [*map(chr, printable), *(chr(256 + number) for number, _ in enumerate(others))]
    vocabulary = {text: number for number, text in enumerate([*characters, "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    config = {"tokenizer_class": "WhisperTokenizer", "model_max_length": 448}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def pickle(source: Path, folder: Path) -> None:
    """Copy a checkpoint with its weights in one pytorch_model.bin."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors", "*.safetensors.index.json"))
    weights = {
        name: tensor for path in sorted(source.glob("*.safetensors")) for name, tensor in load_file(path).items()
    }
    torch.save(weights, folder / "pytorch_model.bin")


if __name__ == "__main__":
    if sys.argv[1] == "build":
        build(json.loads(sys.argv[2]), Path(sys.argv[3]))
    else:
        pickle(Path(sys.argv[2]), Path(sys.argv[3]))
