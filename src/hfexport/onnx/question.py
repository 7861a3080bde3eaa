"""The dummy input of `transformers.onnx` as a probe: two rows of eight tokens, without padding."""

from __future__ import annotations

from typing import Final

from hfexport.export_config import ExportConfig
from hfexport.export_config.probes import Probe

__all__ = ["older_probes"]

_SIZES: Final = (("batch", 2), ("sequence", 8), ("choice", 4), ("past_sequence", 10))


def older_probes(config: ExportConfig) -> tuple[Probe, ...]:
    """Create a probe with the sizes that `transformers.onnx` used, within the limits of `config`.

    Encoder-decoders get none, since their sizes depend on each other and hfexport's own probes cover them.
    """
    known = dict(_SIZES)
    if not set(config.free_axes) <= set(known):
        return ()
    sizes: dict[str, int] = {}
    for axis in config.free_axes:
        maximum = config.limits[axis].maximum if axis in config.limits else None
        sizes[axis] = known[axis] if maximum is None else min(known[axis], maximum)
    return (Probe("as transformers.onnx asked", sizes, seed=11),)
