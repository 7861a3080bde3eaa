"""The least quality of each variant. docs/variants.md shows this table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["LIMITS", "Limits"]


@dataclass(frozen=True)
class Limits:
    """Limits of the measures of one kind of variant.

    Attributes:
        mean_cosine: least mean cosine similarity of outputs.
        worst_cosine: least cosine similarity of an output.
        relative_error: largest mean distance of outputs, relative to the length of the model's.
        top1_agreement: least share of equal decisions of a classifier, or of equal spans, on texts.
        rank_correlation: least correlation of similarities between texts, for embeddings.
        kl_divergence: largest mean Kullback-Leibler divergence of next-token distributions, in nats.
        perplexity_ratio: largest perplexity relative to the model's, on texts.
    """

    mean_cosine: float
    worst_cosine: float
    relative_error: float
    top1_agreement: float
    rank_correlation: float
    kl_divergence: float
    perplexity_ratio: float

    def least(self, measure: str) -> float | None:
        """Return the least allowed value of a measure; `None` if it has none."""
        return {
            "mean_cosine": self.mean_cosine,
            "worst_cosine": self.worst_cosine,
            "top1_agreement": self.top1_agreement,
            "span_agreement": self.top1_agreement,
            "rank_correlation": self.rank_correlation,
        }.get(measure)

    def most(self, measure: str) -> float | None:
        """Return the largest allowed value of a measure; `None` if it has none."""
        return {
            "relative_error": self.relative_error,
            "kl_divergence": self.kl_divergence,
            "perplexity_ratio": self.perplexity_ratio,
        }.get(measure)


_EXACT: Final = Limits(0.99999, 0.9999, 0.001, 0.99, 0.999, 0.0001, 1.001)
_HALF: Final = Limits(0.9999, 0.999, 0.02, 0.98, 0.99, 0.01, 1.01)
_EIGHT_BITS: Final = Limits(0.98, 0.9, 0.25, 0.85, 0.9, 0.1, 1.15)
_FOUR_BITS: Final = Limits(0.95, 0.8, 0.4, 0.75, 0.8, 0.3, 1.4)

LIMITS: Final[Mapping[str, Limits]] = {
    "exact": _EXACT,
    "half": _HALF,
    "integers": _EIGHT_BITS,
    "blocks": _FOUR_BITS,
}
"""Limits by kind of variant; `exact` is for those that only rearrange the graph."""
