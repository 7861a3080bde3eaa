"""The one question that `transformers.onnx` asked: two rows of eight tokens, without padding."""

from __future__ import annotations

from typing import Final

from hfexport.export_config import ExportConfig
from hfexport.probes import Probe

__all__ = ["older_probe"]

_SIZES: Final = (("batch", 2), ("sequence", 8), ("choice", 4), ("past_sequence", 10))


def older_probe(config: ExportConfig) -> Probe:
    """A probe of the sizes that `transformers.onnx` took, within the limits of `config`."""
    known = dict(_SIZES)
    sizes: dict[str, int] = {}
    for axis in config.free_axes:
        maximum = config.limits[axis].maximum if axis in config.limits else None
        size = known.get(axis, config.trace_sizes[axis])
        sizes[axis] = size if maximum is None else min(size, maximum)
    return Probe("as transformers.onnx asked", sizes, seed=11)
