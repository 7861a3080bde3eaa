"""Charts of a manifest as Mermaid, which GitHub draws in Markdown."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Final

from hfexport.manifest.model import Manifest
from hfexport.manifest.speed import contender_of, ratio

__all__ = ["mermaid_charts"]

MAX_BARS: Final = 12
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9 ._/-]")


def mermaid_charts(manifest: Manifest) -> list[str]:
    """Return code blocks with charts: largest difference of each artifact relative to its tolerance, sizes, and latency."""
    shares = [
        (artifact["path"], 100 * float(share))
        for artifact in manifest["artifacts"]
        if isinstance(share := artifact["validation"].get("tolerance_share"), int | float) and math.isfinite(share)
    ]
    files = [(artifact["path"], artifact["files"]) for artifact in manifest["artifacts"]]
    files += [(f"{entry['paths'][0]} {entry['name']}", entry["files"]) for entry in manifest.get("variants", [])]
    sizes = [(name, sum(file["size_bytes"] for file in listed) / 1e6) for name, listed in files]
    charts = []
    if shares:
        top = max(100.0, *(value for _, value in shares))
        charts.append(_bars("Largest difference, in percent of its tolerance", "percent", shares, top))
    if len(sizes) > 1:
        charts.append(_bars("Size of each file, in MB", "MB", sizes, max(value for _, value in sizes)))
    if latencies := _latencies(manifest):
        top = max(100.0, *(value for _, value in latencies))
        charts.append(_bars("Latency, in percent of eager PyTorch", "percent", latencies, top))
    return charts


def _latencies(manifest: Manifest) -> list[tuple[str, float]]:
    """Return the latency of each contender in percent of the model's in eager PyTorch, where both were measured."""
    benchmark = manifest.get("benchmark")
    eager = None if not benchmark else contender_of(benchmark, None)
    if not benchmark or eager is None:
        return []
    found = [(one["name"], ratio(one, eager)) for one in benchmark["contenders"]]
    values = [(name, 100 * value) for name, value in found if value is not None]
    return values if len(values) > 1 else []


def _bars(title: str, unit: str, values: Sequence[tuple[str, float]], top: float) -> str:
    shown = values[:MAX_BARS]
    names = ", ".join(f'"{_label(name)}"' for name, _ in shown)
    heights = ", ".join(f"{value:.6f}" for _, value in shown)
    lines = [
        *("```mermaid", "xychart-beta", f'  title "{title}"', f"  x-axis [{names}]"),
        *(f'  y-axis "{unit}" 0 --> {max(top, 1e-3):.6f}', f"  bar [{heights}]", "```"),
    ]
    return "\n".join(lines)


def _label(name: str) -> str:
    """Return a file's name with only characters that mean nothing in Mermaid or Markdown."""
    return _UNSAFE.sub("_", name)[:40]
