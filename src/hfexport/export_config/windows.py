"""Find attention windows and other lengths above which a model computes differently, and which no probe exceeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from hfexport.export_config.base import ExportConfig
from hfexport.export_config.decoder import rope_growth

__all__ = ["unasked_thresholds", "window_sizes"]

_WINDOWS: Final = ("sliding_window", "local_attention", "attention_window", "local_transformer_stride")
"""Fields of a model's config that hold the length of an attention window."""


def window_sizes(text_config: Any) -> dict[str, int]:
    """Return the length of each attention window that a model's config has, by field; the longest of a list of layers."""
    values = {name: getattr(text_config, name, None) for name in _WINDOWS}
    longest = {
        name: max((size for size in value if isinstance(size, int)), default=0) if isinstance(value, list) else value
        for name, value in values.items()
    }
    return {name: size for name, size in longest.items() if isinstance(size, int) and size > 0}


def unasked_thresholds(config: ExportConfig, asked: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return, by field of the model's config, each length above which it computes differently, if no probe is longer.

    Lengths that the model's inputs cannot exceed are left out.

    Args:
        config: export config of the graph.
        asked: sizes by axis, for each probe. Tokens of a cache count as tokens of the text.
    """
    growth = rope_growth(config.text_config)
    sizes = window_sizes(config.text_config)
    if growth is not None:
        sizes["rope_parameters"] = growth.threshold
    axes = {axis for axis in config.free_axes if axis.endswith("sequence")}
    longest = max((_tokens(probe) for probe in asked), default=0)
    maxima = [limit.maximum for axis, limit in config.limits.items() if axis in axes and limit.maximum is not None]
    most = max(maxima) if maxima else None
    return {name: size for name, size in sizes.items() if axes and size >= longest and (most is None or size < most)}


def _tokens(sizes: Mapping[str, int]) -> int:
    """Return the length of a probe's longest text, including its cache."""
    texts = {axis: size for axis, size in sizes.items() if axis.endswith("sequence")}
    return max((size + texts.get(f"past_{axis}", 0) for axis, size in texts.items()), default=0)
