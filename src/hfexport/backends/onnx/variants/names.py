"""Names of the variants, as Transformers.js, sentence-transformers and Optimum know them. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["FORMAT", "VARIANTS", "Kind", "Limits", "Variant"]

FORMAT: Final = "onnx"
"""Format of the artifacts that variants are made from."""

Kind = Literal["half", "integers", "blocks", "optimised"]
Limits = Literal["exact", "half", "integers", "blocks"]


@dataclass(frozen=True)
class Variant:
    """A variant of an ONNX file.

    Attributes:
        name: name in the input `variants`.
        kind: the way in which it is made; a module of this package.
        limits: limits of its quality, a key of `validation.quality.thresholds.LIMITS`.
        base: dtype of the graph that it is made from.
        size_share: size of the file relative to the float32 file, above which the report says that it is too large.
        signed: 8-bit weights are signed; `None` for signed unless the graph has convolutions.
        codes: code book of 4-bit weights.
        suffix: end of the file's name, after an underscore; the name itself if empty.
    """

    name: str
    kind: Kind
    limits: Limits
    base: Literal["fp32", "fp16"] = "fp32"
    size_share: float = 1.0
    signed: bool | None = True
    codes: Literal["int4", "nf4"] = "int4"
    suffix: str = ""

    @property
    def file_suffix(self) -> str:
        """Return the end of the file's name before the extension: `_int8`."""
        return f"_{self.suffix or self.name}"


_ALL: Final = (
    Variant("fp16", "half", "half", base="fp16", size_share=0.55),
    Variant("int8", "integers", "integers", size_share=0.35),
    Variant("uint8", "integers", "integers", size_share=0.35, signed=False),
    Variant("q8", "integers", "integers", size_share=0.35, signed=None, suffix="quantized"),
    Variant("q4", "blocks", "blocks", size_share=0.3),
    Variant("q4f16", "blocks", "blocks", base="fp16", size_share=0.3),
    Variant("bnb4", "blocks", "blocks", size_share=0.3, codes="nf4"),
    Variant("O1", "optimised", "exact", size_share=1.1),
    Variant("O2", "optimised", "exact", size_share=1.1),
    Variant("O3", "optimised", "half", size_share=1.1),
    Variant("O4", "optimised", "half", base="fp16", size_share=0.55),
    Variant("fused", "optimised", "exact", size_share=1.1),
    Variant("qint8_arm64", "integers", "integers", size_share=0.35),
    Variant("qint8_avx512", "integers", "integers", size_share=0.35),
    Variant("qint8_avx512_vnni", "integers", "integers", size_share=0.35),
    Variant("quint8_avx2", "integers", "integers", size_share=0.35, signed=False),
)

VARIANTS: Final[Mapping[str, Variant]] = {variant.name: variant for variant in _ALL}
"""Every variant by its name."""
