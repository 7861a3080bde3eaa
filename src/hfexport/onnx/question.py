"""The one question that `transformers.onnx` asked: two rows of eight tokens, without padding."""

from __future__ import annotations

from typing import Final

from hfexport.export_config import ExportConfig
from hfexport.export_config.probes import Probe

__all__ = ["older_probes"]

_SIZES: Final = (("batch", 2), ("sequence", 8), ("choice", 4), ("past_sequence", 10))


def older_probes(config: ExportConfig) -> tuple[Probe, ...]:
    """A probe of the sizes that `transformers.onnx` took, within the limits of `config`.

    None for encoder-decoders, whose sizes depend on each other: hfexport's own probes ask enough of these.
    """
    known = dict(_SIZES)
    if not set(config.free_axes) <= set(known):
        return ()
    sizes: dict[str, int] = {}
    for axis in config.free_axes:
        maximum = config.limits[axis].maximum if axis in config.limits else None
        sizes[axis] = known[axis] if maximum is None else min(known[axis], maximum)
    return (Probe("as transformers.onnx asked", sizes, seed=11),)
