"""Write numbers of the manifest for people: sizes, durations, ratios and differences."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["compact", "percent", "seconds", "size"]


def size(size_bytes: float) -> str:
    """Write a size in bytes as B, kB, MB or GB (powers of 1,000)."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.3g} {unit}"
    return f"{size_bytes:.0f} B"


def seconds(duration_s: float) -> str:
    """Write a duration in seconds as ms, s or min."""
    if duration_s >= 120:
        return f"{duration_s / 60:.3g} min"
    return f"{duration_s:.3g} s" if duration_s >= 1 else f"{duration_s * 1000:.3g} ms"


def percent(share: float | None) -> str:
    """Write a ratio in percent; above 10, as a factor."""
    if share is None or math.isnan(share):
        return "not known"
    if math.isinf(share):
        return "infinite"
    return f"{share:.2g} times" if share >= 10 else f"{100 * share:.2g} %" if share < 1 else f"{100 * share:.3g} %"


def compact(value: Any) -> str:
    """Write a number with three significant digits, and other values as text."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)
