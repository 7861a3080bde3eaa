#!/usr/bin/env python3
"""Write into docs/variants.md which parts of a model lose how much in 8 bits.

hfexport --model MODEL --formats onnx --output out
scripts/profile_int8.py out
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from hfexport.backends.onnx.variants.graph import Stored, open_model
from hfexport.backends.onnx.variants.integers import IntegerWeights, quantised_rows
from hfexport.backends.onnx.variants.rewrite import Matrix, Scope, rewrite
from hfexport.backends.onnx.writer import write_model
from hfexport.validation.quality.data import read_data

DOCUMENT: Final = Path(__file__).resolve().parent.parent / "docs/variants.md"
LONGEST: Final = 64
PARTS: Final = {
    "queries and keys": r"self\.(query|key)",
    "values": r"self\.value",
    "output of attention": r"attention\.output",
    "first layer of the feed-forward network": r"intermediate",
    "second layer of the feed-forward network": r"(?<!attention\.)output\.dense",
}
"""Parts of a BERT by a pattern of their weights' names."""


class Partly(IntegerWeights):
    """Rule that gives 8 bits to some of the weights."""

    def __init__(self, opened: Any, products: Callable[[str], bool], *, tables: bool) -> None:
        super().__init__(opened)
        self._products, self._tables = products, tables

    def product(self, scope: Scope, given: str, matrix: Matrix, output: str) -> bool:
        return self._products(matrix.tensor.name) and super().product(scope, given, matrix, output)

    def lookup(self, scope: Scope, table: Stored, indices: str, output: str) -> bool:
        return self._tables and super().lookup(scope, table, indices, output)


@dataclass(frozen=True)
class Texts:
    """The texts that ship with hfexport, tokenised."""

    tokens: tuple[tuple[int, ...], ...]
    ascii: tuple[bool, ...]

    def run(self, path: Path) -> list[np.ndarray[Any, Any]]:
        """Return the last hidden state of each text."""
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        answers = []
        for tokens in self.tokens:
            ids = np.array([tokens])
            given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
            answers.append(session.run(None, {value.name: given[value.name] for value in session.get_inputs()})[0][0])
        return answers


def _cosine(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return np.asarray((one * other).sum(-1) / lengths)


def _row(name: str, texts: Texts, expected: list[Any], found: list[Any]) -> str:
    tokens = [_cosine(*pair) for pair in zip(found, expected, strict=True)]
    pooled = np.array([_cosine(one.mean(0), other.mean(0)) for one, other in zip(found, expected, strict=True)])
    latin = np.concatenate([value for value, plain in zip(tokens, texts.ascii, strict=True) if plain])
    others = np.concatenate([value for value, plain in zip(tokens, texts.ascii, strict=True) if not plain])
    every = np.concatenate(tokens)
    means = (every.mean(), latin.mean(), others.mean(), every.min(), pooled.mean(), pooled.min())
    return f"| {name} | " + " | ".join(f"{value:.4f}" for value in means) + " |"


def _quantised(base: Path, target: Path, products: Callable[[str], bool], *, tables: bool) -> Path:
    opened = open_model(base)
    rewrite(opened, Partly(opened, products, tables=tables))
    write_model(opened.model, list(opened.weights.values()), target, lambda _: None, external=False)
    return target


def _is_in(pattern: str, weight: str) -> bool:
    return bool(re.search(pattern, weight))


def _rounded(base: Path, target: Path) -> Path:
    """Write the model with rounded weights, computed in float32."""
    opened = open_model(base)
    for name, weight in list(opened.weights.items()):
        if isinstance(weight, Stored) and weight.is_float and len(weight.shape) == 2:
            whole, scales = quantised_rows(weight.read(), signed=True)
            values = whole.astype(np.float32) * scales[:, None]
            opened.weights[name] = Stored(name, weight.data_type, weight.shape, partial(np.copy, values))
    write_model(opened.model, list(opened.weights.values()), target, lambda _: None, external=False)
    return target


def main(arguments: list[str]) -> int:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("export", type=Path, help="folder of an export of a BERT")
    export: Path = parser.parse_args(arguments).export
    base = export / "onnx/model.onnx"
    tokenizer = Tokenizer.from_file(str(export / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    shipped = [parts[0] for parts in read_data(None).texts]
    texts = Texts(
        tuple(tuple(tokenizer.encode(text).ids) for text in shipped), tuple(text.isascii() for text in shipped)
    )
    expected = texts.run(base)
    columns = ("8 bits", "mean, tokens", "ASCII texts", "other texts", "worst token", "mean, pooled", "worst, pooled")
    rows = ["| " + " | ".join(columns) + " |", "| " + " | ".join(["---"] * len(columns)) + " |"]
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "model.onnx"

        def add(name: str, path: Path) -> None:
            rows.append(_row(name, texts, expected, texts.run(path)))

        add("all weights and activations (`int8`)", _quantised(base, made, lambda _: True, tables=True))
        add("weights, activations in float32", _rounded(base, made))
        add("tables of embeddings", _quantised(base, made, lambda _: False, tables=True))
        for name, pattern in PARTS.items():
            add(name, _quantised(base, made, partial(_is_in, pattern), tables=False))
    text = DOCUMENT.read_text(encoding="utf-8")
    start, end = "<!-- profile:start -->", "<!-- profile:end -->"
    head, _, rest = text.partition(start)
    DOCUMENT.write_text(head + start + "\n" + "\n".join(rows) + "\n" + end + rest.partition(end)[2], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
