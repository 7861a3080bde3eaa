"""Names of the variants, as Transformers.js, sentence-transformers and Optimum know them. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from hfexport.backends.formats import Limits, Variant

__all__ = ["FORMAT", "VARIANTS", "Kind", "OnnxVariant"]

FORMAT: Final = "onnx"
"""Format of the artifacts that these variants are made from."""

Kind = Literal["half", "integers", "blocks", "optimised", "fused"]


@dataclass(frozen=True)
class OnnxVariant(Variant):
    """A variant of an ONNX file.

    Attributes:
        kind: the way in which it is made; a module of this package.
        signed: 8-bit weights are signed; `None` for signed unless the graph has convolutions.
        codes: code book of 4-bit weights.
    """

    kind: Kind = "half"
    signed: bool | None = True
    codes: Literal["int4", "nf4"] = "int4"


def _integers(name: str, *, signed: bool | None = True, suffix: str = "") -> OnnxVariant:
    return OnnxVariant(name, FORMAT, "integers", size_share=0.35, suffix=suffix, kind="integers", signed=signed)


def _blocks(name: str, base: Literal["fp32", "fp16"] = "fp32", codes: Literal["int4", "nf4"] = "int4") -> OnnxVariant:
    return OnnxVariant(name, FORMAT, "blocks", base, size_share=0.3, kind="blocks", codes=codes)


def _optimised(name: str, limits: Limits, base: Literal["fp32", "fp16"] = "fp32", share: float = 1.1) -> OnnxVariant:
    return OnnxVariant(name, FORMAT, limits, base, size_share=share, keeps_weights=False, kind="optimised")


_ALL: Final = (
    OnnxVariant("fp16", FORMAT, "half", base="fp16", size_share=0.55),
    _integers("int8"),
    _integers("uint8", signed=False),
    _integers("q8", signed=None, suffix="quantized"),
    _blocks("q4"),
    _blocks("q4f16", base="fp16"),
    _blocks("bnb4", codes="nf4"),
    _optimised("O1", "exact"),
    _optimised("O2", "exact"),
    _optimised("O3", "half"),
    _optimised("O4", "half", base="fp16", share=0.55),
    OnnxVariant("fused", FORMAT, "exact", size_share=1.1, kind="fused"),
    _integers("qint8_arm64"),
    _integers("qint8_avx512"),
    _integers("qint8_avx512_vnni"),
    _integers("quint8_avx2", signed=False),
)

VARIANTS: Final[Mapping[str, OnnxVariant]] = {variant.name: variant for variant in _ALL}
"""Every variant by its name."""
