"""Sentence embeddings of the reference: the model's token embeddings, pooled row by row with numpy.

It shares no code with the exported module, so that an error there cannot cancel out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hfexport.export_config.sentence import SentenceModules, Splade

__all__ = ["sentence_embeddings"]

Row = NDArray[np.float64]


def sentence_embeddings(tokens: NDArray[Any], mask: NDArray[Any], modules: SentenceModules) -> NDArray[Any]:
    """Return one vector per row.

    Args:
        tokens: (batch, sequence, hidden), or logits (batch, sequence, vocabulary) for SPLADE.
        mask: (batch, sequence).
        modules: modules to apply.

    Returns:
        (batch, size), in the dtype of `tokens`.
    """
    rows = []
    for row, shown in zip(tokens.astype(np.float64), mask, strict=True):
        kept = np.flatnonzero(shown)
        if modules.splade is not None:
            vector = _splade(row, kept, modules.splade)
        else:
            vector = np.concatenate([_POOL[mode](row, kept) for mode in modules.pooling])
        for layer in modules.dense:
            vector = _dense(vector, layer.file, layer.activation)
        if modules.normalize:
            vector = vector / max(float(np.sqrt((vector * vector).sum())), 1e-12)
        rows.append(vector[: modules.truncate_dim])
    return np.stack(rows).astype(tokens.dtype)


def _weighted_mean(row: Row, kept: NDArray[np.int64]) -> Row:
    weights = kept + 1.0
    return np.asarray((row[kept] * weights[:, None]).sum(axis=0) / weights.sum())


def _splade(row: Row, kept: NDArray[np.int64], splade: Splade) -> Row:
    weights = np.log(1.0 + np.maximum(row[kept], 0.0))
    if splade.log_twice:
        weights = np.log(1.0 + weights)
    return np.asarray(weights.max(axis=0) if splade.strategy == "max" else weights.sum(axis=0))


_POOL: Final[Mapping[str, Callable[[Row, NDArray[np.int64]], Row]]] = MappingProxyType(
    {
        "cls": lambda row, _: row[0],
        "max": lambda row, kept: row[kept].max(axis=0),
        "mean": lambda row, kept: row[kept].mean(axis=0),
        "mean_sqrt_len": lambda row, kept: row[kept].sum(axis=0) / math.sqrt(len(kept)),
        "weightedmean": _weighted_mean,
        "lasttoken": lambda row, kept: row[kept[-1]],
    }
)
"""Pooling function by mode: from a row (sequence, hidden) and the positions of its tokens to (hidden,)."""

_ACTIVATE: Final[Mapping[str, Callable[[Row], Row]]] = MappingProxyType(
    {
        "Identity": lambda vector: vector,
        "Tanh": np.tanh,
        "ReLU": lambda vector: np.maximum(vector, 0.0),
        "GELU": lambda vector: np.array([0.5 * x * (1.0 + math.erf(x / math.sqrt(2.0))) for x in vector]),
        "Sigmoid": lambda vector: 1.0 / (1.0 + np.exp(-vector)),
    }
)


def _dense(vector: Row, file: str, activation: str) -> Row:
    from safetensors.numpy import load_file

    weights = load_file(file)
    product = weights["linear.weight"].astype(np.float64) @ vector
    return _ACTIVATE[activation](product + weights.get("linear.bias", np.zeros(len(product))))
