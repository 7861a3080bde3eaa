"""What tests of consumers start from: tiny exports, and what they are asked with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from hfexport.cli.main import main
from hfexport.export_config.tasks import TASKS
from tiny import make_checkpoint
from tiny.sentence import write_modules

__all__ = [
    "BEAMS",
    "DTYPES",
    "EXPORTS",
    "FILE_NAMES",
    "GREEDY",
    "Made",
    "cosines",
    "export",
    "make",
    "text",
    "write_sentence_modules",
]

GREEDY: Mapping[str, Any] = {"max_new_tokens": 16, "do_sample": False, "num_beams": 1}
BEAMS: Mapping[str, Any] = {"max_new_tokens": 16, "do_sample": False, "num_beams": 3}
"""Beam search reorders the rows of the cache at every step."""


DTYPES = ("fp16", "q8", "int8", "uint8", "q4", "q4f16", "bnb4")
"""Variants that Transformers.js selects by `dtype`."""

FILE_NAMES = (
    *("O1", "O2", "O3", "O4", "fused"),
    *("qint8_arm64", "qint8_avx512", "qint8_avx512_vnni", "quint8_avx2"),
)
"""Variants that sentence-transformers, Optimum and ONNX Runtime load by the name of a file."""

EXPORTS: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "extractor": ("bert", "default", {"hidden_size": 64, "intermediate_size": 128}),
    "classifier": ("distilbert", "sequence-classification", {"dim": 64, "hidden_dim": 128}),
    "decoder": ("llama", "causal-lm-with-past", {"hidden_size": 64, "intermediate_size": 128}),
    "encoder-decoder": ("t5", "seq2seq-lm-with-past", {"d_model": 64, "d_ff": 128, "num_decoder_layers": 2}),
}
"""Exports with variants and `target: transformersjs`: model_type, task and changes of the config.

All have the variants of `DTYPES`. The extractor also has those of `FILE_NAMES`, and is a sentence-transformers folder.
Sizes are multiples of 64, since `bnb4` leaves other products as they are.
"""


@dataclass(frozen=True)
class Made:
    """A tiny checkpoint and the folder of its export."""

    checkpoint: Path
    output: Path
    task: str

    def model(self) -> Any:
        """Return the model in evaluation mode."""
        return getattr(transformers, TASKS[self.task].auto_class).from_pretrained(self.checkpoint).eval()

    def inputs(self, model: Any) -> dict[str, np.ndarray[Any, Any]]:
        """Return padded token ids, and the first tokens of the decoder if there is one."""
        config = model.config
        inputs = text(config.vocab_size, config.pad_token_id, left=self.task.startswith("causal"))
        if config.is_encoder_decoder:
            inputs["decoder_input_ids"] = inputs["input_ids"][:, :4]
        return inputs

    def answer(self, model: Any, inputs: Mapping[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        """Return the model's first output where no token is padding, as rows."""
        with torch.no_grad():
            tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
            first = model(**tensors, return_dict=True).to_tuple()[0].numpy()
        return self.visible(first, inputs)

    def visible(self, output: Any, inputs: Mapping[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        """Return rows of an output that are not padding."""
        array = np.asarray(output)
        if array.ndim == 2 or "decoder_input_ids" in inputs:
            return array.reshape(-1, array.shape[-1])
        return array[inputs["attention_mask"] == 1]


def make(folder: Path, name: str) -> Made:
    """Export a model of `EXPORTS` with all its variants. They are not measured here: consumers run them."""
    model_type, task, changes = EXPORTS[name]
    checkpoint = make_checkpoint(folder / "checkpoint", model_type, task, tokenizer=True, **changes)
    variants = DTYPES
    if name == "extractor":
        write_sentence_modules(checkpoint, dense=(10, 64))
        variants += FILE_NAMES
    output = folder / "output"
    asked = ["--model", str(checkpoint), "--task", task, "--formats", "onnx", "--validate", "off"]
    asked += ["--target", "transformersjs", "--variants", ",".join(variants)]
    assert main([*asked, "--output", str(output)]) == 0
    return Made(checkpoint, output, task)


def write_sentence_modules(checkpoint: Path, dense: tuple[int, int]) -> None:
    """Make a checkpoint a sentence-transformers folder that older versions of transformers load too."""
    write_modules(checkpoint, ("mean",), dense=dense)
    path = checkpoint / "tokenizer_config.json"
    # The name that transformers 5 writes is not known to transformers 4, which Optimum and its peers need.
    settings = {**json.loads(path.read_text()), "tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps(settings))


def cosines(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the cosine similarity of each row of two arrays."""
    lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    return np.asarray(np.sum(first * second, axis=-1) / lengths)


def export(folder: Path, model_type: str, task: str, *, layout: str = "auto", **settings: Any) -> tuple[Path, Path]:
    """A tiny checkpoint and the folder of its export."""
    checkpoint = make_checkpoint(folder / "checkpoint", model_type, task, **settings)
    output = folder / "output"
    asked = ["--model", str(checkpoint), "--task", task, "--formats", "onnx", "--layout", layout]
    assert main([*asked, "--output", str(output)]) == 0
    return checkpoint, output


def text(vocabulary: int, pad: int, *, left: bool = False) -> dict[str, np.ndarray[Any, Any]]:
    """Three rows of token ids, two of them padded; ids that mean something to models are left out."""
    ids = np.random.default_rng(0).integers(5, vocabulary - 2, (3, 9))
    mask = np.ones_like(ids)
    mask[1, 6:] = mask[2, 4:] = 0
    if left:
        mask = mask[:, ::-1].copy()
    return {"input_ids": np.where(mask == 0, pad, ids), "attention_mask": mask}
