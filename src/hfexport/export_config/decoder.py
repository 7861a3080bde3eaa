"""Decoders of text, with and without the key/value cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from hfexport.export_config.axes import Axis
from hfexport.export_config.base import ExportConfig, Limit, Role, TensorSpec

__all__ = ["DecoderConfig"]

TOTAL = "past_sequence + sequence"

_CACHE_PARTS: tuple[tuple[str, Role], ...] = (("key", "past_key"), ("value", "past_value"))


class DecoderConfig(ExportConfig):
    """Decoders of text. With past, one graph takes a cache of any length, 0 (a prefill) included."""

    takes_positions: ClassVar[bool] = True
    """Whether the model can be told the positions of its tokens; one that cannot counts them from the mask."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        with_past, language_model = self.task.with_past, self.task.name.startswith("causal-lm")
        mask_axis = TOTAL if with_past else "sequence"
        specs = [
            TensorSpec("input_ids", ("batch", "sequence"), "int64", "token_ids"),
            TensorSpec("attention_mask", ("batch", mask_axis), "int64", "attention_mask"),
        ]
        if self.takes_positions and (with_past or language_model):
            # Positions follow the mask under left padding; only the caller knows it when the cache holds the rest.
            specs.append(TensorSpec("position_ids", ("batch", "sequence"), "int64", "position_ids"))
        if with_past:
            specs.extend(self._cache("past_key_values", "past_sequence"))
        return tuple(specs)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        cache = self._cache("present", TOTAL) if self.task.with_past else ()
        return (*super().outputs, *(TensorSpec(spec.name, spec.axes, "float", "output") for spec in cache))

    def _cache(self, prefix: str, length: str) -> tuple[TensorSpec, ...]:
        axes: tuple[Axis, ...] = ("batch", self.cache_heads, length, self.head_size)
        return tuple(
            TensorSpec(f"{prefix}.{layer}.{part}", axes, "float", role)
            for layer in range(self.cache_layers)
            for part, role in _CACHE_PARTS
        )

    @property
    def cache_heads(self) -> int:
        """Heads in the cache: fewer than attention heads where queries share keys (grouped-query attention)."""
        return int(getattr(self.config, "num_key_value_heads", None) or self.config.num_attention_heads)

    @property
    def cache_layers(self) -> int:
        return int(self.config.num_hidden_layers)

    @property
    def head_size(self) -> int:
        return int(getattr(self.config, "head_dim", None) or self.config.hidden_size // self.config.num_attention_heads)

    @property
    def max_positions(self) -> int | None:
        """The most tokens that the model can tell apart, past and new; `None` where there is no end."""
        return int(self.config.max_position_embeddings)

    @property
    def limits(self) -> Mapping[str, Limit]:
        last = self.max_positions
        limits = {"sequence": Limit(1, last), "past_sequence": Limit(0, None if last is None else last - 1)}
        if self.task.name == "sequence-classification" and self.config.pad_token_id is None:
            # Without a padding token transformers cannot tell where a row of a batch ends, and refuses batches.
            limits["batch"] = Limit(1, 1)
        return limits

    @property
    def trace_sizes(self) -> Mapping[str, int]:
        batch = 1 if "batch" in self.limits else 2
        return {"batch": batch, "sequence": 3 if self.task.with_past else 7, "past_sequence": 5}
