"""What a sentence-transformers folder does to a model's token embeddings until they are one vector a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

__all__ = ["ACTIVATIONS", "POOLING_MODES", "Dense", "SentenceModules", "Splade"]

POOLING_MODES: Final = ("cls", "max", "mean", "mean_sqrt_len", "weightedmean", "lasttoken")
"""In the order in which sentence-transformers concatenates what they give."""

ACTIVATIONS: Final = ("Identity", "Tanh", "ReLU", "GELU", "Sigmoid")
"""Classes of `torch.nn` that a dense module may apply."""


@dataclass(frozen=True)
class Dense:
    """A linear layer behind the pooling.

    Attributes:
        file: safetensors with `linear.weight` (out, in) and perhaps `linear.bias` (out,); in a folder as it was given, it
            may be a pytorch_model.bin.
        activation: one of `ACTIVATIONS`.
    """

    file: str
    activation: str


@dataclass(frozen=True)
class Splade:
    """Pooling of masked-LM logits to one weight a word of the vocabulary: `log(1 + relu(logits))`, over the tokens.

    The formula is that of https://sbert.net/docs/package_reference/sparse_encoder/models.html#splade-pooling.

    Attributes:
        strategy: what is taken over the tokens of a row.
        log_twice: apply the logarithm a second time (`activation_function` is `log1p_relu`).
    """

    strategy: Literal["max", "sum"]
    log_twice: bool = False


@dataclass(frozen=True)
class SentenceModules:
    """The modules behind the transformer, in the order of sentence-transformers: pooling, dense layers, normalisation.

    Attributes:
        pooling: of `POOLING_MODES`, in their order; what they give is concatenated. Empty where `splade` pools.
        dense: linear layers, applied one after the other.
        normalize: divide each vector by its length.
        truncate_dim: how many values of each vector are kept, at the very end; `None` keeps all.
        splade: what pools the logits of a masked-LM head, in place of `pooling`.
    """

    pooling: tuple[str, ...]
    dense: tuple[Dense, ...] = field(default=())
    normalize: bool = False
    truncate_dim: int | None = None
    splade: Splade | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON values from which `from_dict` makes the same modules."""
        return {**asdict(self), "pooling": list(self.pooling), "dense": [asdict(layer) for layer in self.dense]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SentenceModules:
        splade = values["splade"]
        return cls(
            tuple(values["pooling"]),
            tuple(Dense(**layer) for layer in values["dense"]),
            bool(values["normalize"]),
            values["truncate_dim"],
            None if splade is None else Splade(**splade),
        )
