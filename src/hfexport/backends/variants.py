"""Table of all variants of all formats. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from hfexport.backends.formats import Variant
from hfexport.backends.onnx.variants.names import VARIANTS as ONNX
from hfexport.backends.torchscript.variants.names import VARIANTS as TORCHSCRIPT

__all__ = ["VARIANTS"]

VARIANTS: Final[Mapping[str, Variant]] = MappingProxyType({**ONNX, **TORCHSCRIPT})
"""Every variant by its name; a name belongs to one format."""
