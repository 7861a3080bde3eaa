"""Targets: further files and settings with which a consumer loads ONNX files. One module each.

Standard library only, so that the names are known without loading torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from hfexport.backends.onnx.targets.base import Divided, Exported, Rewritten, Target
from hfexport.backends.onnx.targets.genai import GenAI
from hfexport.backends.onnx.targets.transformersjs import TransformersJs

__all__ = ["TARGETS", "Divided", "Exported", "Rewritten", "Target", "chunk_limit", "shares_weights"]

TARGETS: Final[Mapping[str, Target]] = MappingProxyType({target.name: target for target in (TransformersJs(), GenAI())})
"""Every target by its name in the input `target`."""


def chunk_limit(names: Iterable[str]) -> int | None:
    """Return the largest size in bytes of a file of external data that all named targets take; `None` for no limit."""
    limits = [limit for name in names if (limit := TARGETS[name].chunk_bytes) is not None]
    return min(limits, default=None)


def shares_weights(names: Iterable[str]) -> bool:
    """Return whether a named target needs the weights in files of external data; see `Target.shares_weights`."""
    return any(TARGETS[name].shares_weights for name in names)
