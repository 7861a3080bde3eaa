"""Names of the TorchScript variants. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hfexport.backends.formats import Variant

__all__ = ["VARIANTS"]

_ALL: Final = (
    Variant("frozen", "torchscript", "exact", base="", size_share=1.1, io_in_fp32=False),
    # tables of embeddings stay in float32
    Variant("dynamic_int8", "torchscript", "integers", size_share=0.8),
)

VARIANTS: Final[Mapping[str, Variant]] = {variant.name: variant for variant in _ALL}
"""Every variant by its name."""
