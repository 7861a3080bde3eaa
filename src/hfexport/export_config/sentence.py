"""What a sentence-transformers folder does to a model's token embeddings until they are one vector a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

__all__ = ["ACTIVATIONS", "POOLING_MODES", "Dense", "SentenceModules"]

POOLING_MODES: Final = ("cls", "max", "mean", "mean_sqrt_len", "weightedmean", "lasttoken")
"""In the order in which sentence-transformers concatenates what they give."""

ACTIVATIONS: Final = ("Identity", "Tanh", "ReLU", "GELU", "Sigmoid")
"""Classes of `torch.nn` that a dense module may apply."""


@dataclass(frozen=True)
class Dense:
    """A linear layer behind the pooling.

    Attributes:
        file: safetensors with `linear.weight` (out, in) and perhaps `linear.bias` (out,).
        activation: one of `ACTIVATIONS`.
    """

    file: str
    activation: str


@dataclass(frozen=True)
class SentenceModules:
    """The modules behind the transformer, in the order of sentence-transformers: pooling, dense layers, normalisation.

    Attributes:
        pooling: of `POOLING_MODES`, in their order; what they give is concatenated.
        dense: linear layers, applied one after the other.
        normalize: divide each vector by its length at the end.
    """

    pooling: tuple[str, ...]
    dense: tuple[Dense, ...] = field(default=())
    normalize: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON values from which `from_dict` makes the same modules."""
        return {
            "pooling": list(self.pooling),
            "dense": [asdict(layer) for layer in self.dense],
            "normalize": self.normalize,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SentenceModules:
        return cls(
            tuple(values["pooling"]), tuple(Dense(**layer) for layer in values["dense"]), bool(values["normalize"])
        )
