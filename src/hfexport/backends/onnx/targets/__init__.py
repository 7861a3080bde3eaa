"""Targets: further files and settings with which a consumer loads ONNX files. One module each.

Standard library only, so that the names are known without loading torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from hfexport.backends.onnx.targets.base import Exported, Target
from hfexport.backends.onnx.targets.genai import GenAI
from hfexport.backends.onnx.targets.transformersjs import TransformersJs

__all__ = ["TARGETS", "Exported", "Target"]

TARGETS: Final[Mapping[str, Target]] = MappingProxyType({target.name: target for target in (TransformersJs(), GenAI())})
"""Every target by its name in the input `target`."""
