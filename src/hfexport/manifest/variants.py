"""Describe the variants of an export in tables: size, quality, speed, and how to load each."""

from __future__ import annotations

from typing import Final

from hfexport._internal.sizes import size_text
from hfexport.manifest.model import Manifest, Number, VariantEntry
from hfexport.manifest.speed import latency_of

__all__ = ["VARIANT_COLUMNS", "how_to_load", "quality_of", "variant_rows"]

VARIANT_COLUMNS: Final = (
    "variant",
    "files",
    "size",
    "of float32",
    "similarity",
    "further measures",
    "latency",
    "verdict",
)

_FURTHER: Final = (
    *("top1_agreement", "span_agreement", "rank_correlation", "neighbour_agreement"),
    *("kl_divergence", "perplexity_ratio", "greedy_agreement"),
)
"""Measures that the table shows beside the similarity."""

_TRANSFORMERS_JS: Final = ("fp16", "int8", "uint8", "q8", "q4", "q4f16", "bnb4")


def variant_rows(manifest: Manifest) -> list[list[str]]:
    """Return one row for each variant, with the columns `VARIANT_COLUMNS`."""
    return [
        [
            entry["name"],
            ", ".join(entry["paths"]),
            size_text(sum(file["size_bytes"] for file in entry["files"])),
            f"{entry['size_share']:.0%}",
            quality_of(entry),
            ", ".join(f"{name.replace('_', ' ')} {_short(value)}" for name, value in _further(entry).items()) or "-",
            latency_of(manifest, entry["format"], entry["name"]),
            entry["quality"]["verdict"].replace("_", " "),
        ]
        for entry in manifest.get("variants", [])
    ]


def quality_of(entry: VariantEntry) -> str:
    """Return the smallest mean and worst cosine similarity over the graphs of a variant."""
    found = [_values(entry, name) for name in ("mean_cosine", "worst_cosine")]
    return f"{min(found[0]):.4f} mean, {min(found[1]):.4f} worst" if all(found) else "-"


def how_to_load(entry: VariantEntry, manifest: Manifest) -> str:
    """Return how loaders name the variant, in one line."""
    del manifest
    name, path = entry["name"], entry["paths"][0]
    if entry["format"] == "torchscript":
        return f'`torch.jit.load("{path}")`'
    ways = [f"ONNX Runtime: `{path}`"]
    if name in _TRANSFORMERS_JS:
        ways.append(f'Transformers.js: `dtype: "{name}"`')
    if len(entry["paths"]) == 1:
        ways.append(f'sentence-transformers and Optimum: `file_name="{path}"`')
    return "; ".join(ways)


def _values(entry: VariantEntry, name: str) -> list[float]:
    values = [measure["value"] for measure in entry["quality"]["measures"] if measure["name"] == name]
    return [float(value) for value in values if value is not None]


def _further(entry: VariantEntry) -> dict[str, Number]:
    """Return the further measures of the last graph that has them."""
    return {
        name: measure["value"]
        for name in _FURTHER
        for measure in entry["quality"]["measures"]
        if measure["name"] == name
    }


def _short(value: Number) -> str:
    return f"{value:.3g}" if isinstance(value, float | int) else str(value)
