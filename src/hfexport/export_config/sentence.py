"""Modules of a sentence-transformers folder that turn token embeddings into one vector per row."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Final, Literal, cast

from hfexport.export_config.recipe import SentenceValues

__all__ = ["ACTIVATIONS", "POOLING_MODES", "Dense", "SentenceModules", "Splade"]

POOLING_MODES: Final = ("cls", "max", "mean", "mean_sqrt_len", "weightedmean", "lasttoken")
"""Pooling modes, in the order in which sentence-transformers concatenates their outputs."""

ACTIVATIONS: Final = ("Identity", "Tanh", "ReLU", "GELU", "Sigmoid")
"""Classes of `torch.nn` that a dense module may use as its activation."""


@dataclass(frozen=True)
class Dense:
    """A linear layer after the pooling.

    Attributes:
        file: safetensors file with `linear.weight` (out, in) and optionally `linear.bias` (out,). In the user's folder
            it may be a pytorch_model.bin.
        activation: one of `ACTIVATIONS`.
    """

    file: str
    activation: str


@dataclass(frozen=True)
class Splade:
    """Pool masked-LM logits to one weight per vocabulary entry: `log(1 + relu(logits))`, over the tokens.

    Formula: https://sbert.net/docs/package_reference/sparse_encoder/models.html#splade-pooling.

    Attributes:
        strategy: reduction over the tokens of a row.
        log_twice: apply the logarithm a second time (`activation_function` is `log1p_relu`).
    """

    strategy: Literal["max", "sum"]
    log_twice: bool = False


@dataclass(frozen=True)
class SentenceModules:
    """Modules after the transformer, in the order of sentence-transformers: pooling, dense layers, normalisation.

    Attributes:
        pooling: some of `POOLING_MODES`, in their order; the outputs are concatenated. Empty if `splade` pools.
        dense: linear layers, applied in order.
        normalize: divide each vector by its length.
        truncate_dim: number of leading values of each vector to keep, as the last step; `None` keeps all.
        splade: pooling of the logits of a masked-LM head, which replaces `pooling`.
    """

    pooling: tuple[str, ...]
    dense: tuple[Dense, ...] = field(default=())
    normalize: bool = False
    truncate_dim: int | None = None
    splade: Splade | None = None

    def to_dict(self) -> SentenceValues:
        """Convert to JSON values that `from_dict` reads."""
        return cast(
            "SentenceValues", {**asdict(self), "pooling": list(self.pooling), "dense": list(map(asdict, self.dense))}
        )

    @classmethod
    def from_dict(cls, values: SentenceValues) -> SentenceModules:
        splade = values["splade"]
        return cls(
            tuple(values["pooling"]),
            tuple(Dense(**layer) for layer in values["dense"]),
            bool(values["normalize"]),
            values["truncate_dim"],
            None if splade is None else Splade(**splade),
        )
