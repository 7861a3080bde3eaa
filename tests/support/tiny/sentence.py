"""sentence-transformers folders: modules behind a tiny model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file

__all__ = ["write_modules"]

CONFIGS: Final[Mapping[str, Mapping[str, Any]]] = {}
VARIANTS: Final = ()


def write_modules(folder: Path, modes: Sequence[str], *, dense: tuple[int, int] | None = None) -> None:
    """Make a checkpoint's folder one of sentence-transformers, with normalisation at the end.

    Args:
        folder: holds the transformer.
        modes: of the pooling, such as `mean_tokens`' `mean`.
        dense: (out, in) features of a layer with tanh behind the pooling; `None` for none.
    """
    keys = {"cls": "cls_token", "lasttoken": "lasttoken"}
    kinds = ["Transformer", "Pooling", *(["Dense"] if dense else []), "Normalize"]
    places = ["", *(f"{number}_{kind}" for number, kind in enumerate(kinds[1:], start=1))]
    entries = [
        {"idx": number, "name": str(number), "path": place, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, place) in enumerate(zip(kinds, places, strict=True))
    ]
    for place in places[1:]:
        (folder / place).mkdir(parents=True, exist_ok=True)
    (folder / "modules.json").write_text(json.dumps(entries), encoding="utf-8")
    every = ("cls", "max", "mean", "mean_sqrt_len", "weightedmean", "lasttoken")
    pooling: dict[str, Any] = {f"pooling_mode_{keys.get(mode, f'{mode}_tokens')}": mode in modes for mode in every}
    if dense is not None:
        pooling["word_embedding_dimension"] = dense[1] // len(modes)
    (folder / "1_Pooling/config.json").write_text(json.dumps(pooling), encoding="utf-8")
    if dense is not None:
        config = {"out_features": dense[0], "in_features": dense[1]}
        config["activation_function"] = "torch.nn.modules.activation.Tanh"  # type: ignore[assignment]
        (folder / "2_Dense/config.json").write_text(json.dumps(config), encoding="utf-8")
        generator = torch.Generator().manual_seed(7)
        weights = {
            "linear.weight": torch.randn(*dense, generator=generator) * 0.3,
            "linear.bias": torch.randn(dense[0], generator=generator) * 0.3,
        }
        save_file(weights, folder / "2_Dense/model.safetensors")
