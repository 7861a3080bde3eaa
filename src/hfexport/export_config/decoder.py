"""Text decoders, with and without the key/value cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from hfexport.export_config.axes import Axis
from hfexport.export_config.base import ExportConfig, Limit, Role, TensorSpec

if TYPE_CHECKING:
    from hfexport.export_config.probes.probe import Probe
    from hfexport.export_config.probes.values import Padding

__all__ = ["AFFORDABLE_THRESHOLD", "DecoderConfig", "RopeGrowth", "rope_growth"]

TOTAL = "past_sequence + sequence"

AFFORDABLE_THRESHOLD: Final = 1024
"""Largest threshold that probes go beyond. The cost of eager attention grows too fast for longer ones."""

_CACHE_PARTS: tuple[tuple[str, Role], ...] = (("key", "past_key"), ("value", "past_value"))


@dataclass(frozen=True)
class RopeGrowth:
    """Change of a rotary embedding with the length of the text.

    Attributes:
        threshold: length above which the frequencies change.
        maximum: length that the model is designed for.
    """

    threshold: int
    maximum: int


def rope_growth(config: Any) -> RopeGrowth | None:
    """Return the values of rope type `dynamic` or `longrope`; `None` for rotary embeddings that do not change.

    A dynamic embedding is designed for `factor` times the number of positions in training:
    https://huggingface.co/docs/transformers/main/en/internal/rope_utils
    """
    parameters = getattr(config, "rope_parameters", None) or {}
    for part in (parameters, *parameters.values()):
        kind = part.get("rope_type") if isinstance(part, Mapping) else None
        if kind == "longrope":
            return RopeGrowth(int(part["original_max_position_embeddings"]), int(config.max_position_embeddings))
        if kind == "dynamic":
            trained = int(config.max_position_embeddings)
            return RopeGrowth(trained, int(trained * float(part["factor"])))
    return None


class DecoderConfig(ExportConfig):
    """Base class for text decoders. With past, one graph takes a cache of any length, including 0 (a prefill)."""

    fixed_paddings: ClassVar[tuple[Padding, ...]] = ("none", "right", "left")

    takes_positions: ClassVar[bool] = True
    """Whether the model takes position ids; if not, it computes positions from the mask."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        with_past, language_model = self.task.with_past, self.task.name.startswith("causal-lm")
        mask_axis = TOTAL if with_past else "sequence"
        specs = [
            TensorSpec("input_ids", ("batch", "sequence"), "int64", "token_ids"),
            TensorSpec("attention_mask", ("batch", mask_axis), "int64", "attention_mask"),
        ]
        if self.takes_positions and (with_past or language_model):
            # Positions follow the mask under left padding; with a cache, only the caller knows the whole mask.
            specs.append(TensorSpec("position_ids", ("batch", "sequence"), "int64", "position_ids"))
        if with_past:
            specs.extend(self._cache("past_key_values", "past_sequence"))
        return tuple(specs)

    @property
    def own_outputs(self) -> tuple[TensorSpec, ...]:
        cache = self._cache("present", TOTAL) if self.task.with_past else ()
        return (*super().own_outputs, *(TensorSpec(spec.name, spec.axes, "float", "output") for spec in cache))

    def _cache(self, prefix: str, length: str) -> tuple[TensorSpec, ...]:
        axes: tuple[Axis, ...] = ("batch", self.cache_heads, length, self.head_size)
        return tuple(
            TensorSpec(f"{prefix}.{layer}.{part}", axes, "float", role)
            for layer in range(self.cache_layers)
            for part, role in _CACHE_PARTS
        )

    @property
    def cache_heads(self) -> int:
        """Return the number of heads in the cache; fewer than query heads with grouped-query attention."""
        return int(getattr(self.config, "num_key_value_heads", None) or self.config.num_attention_heads)

    @property
    def cache_layers(self) -> int:
        return int(self.config.num_hidden_layers)

    @property
    def head_size(self) -> int:
        return int(getattr(self.config, "head_dim", None) or self.config.hidden_size // self.config.num_attention_heads)

    @property
    def max_positions(self) -> int | None:
        """Return the largest number of positions, past and new; `None` if there is no maximum."""
        growth = rope_growth(self.config)
        return int(self.config.max_position_embeddings) if growth is None else growth.maximum

    @property
    def thresholds(self) -> Mapping[str, int]:
        growth = rope_growth(self.config)
        if growth is None or growth.threshold > AFFORDABLE_THRESHOLD:
            return {}
        return {"past_sequence" if self.task.with_past else "sequence": growth.threshold}

    @property
    def limits(self) -> Mapping[str, Limit]:
        last = self.max_positions
        limits = {"sequence": Limit(1, last), "past_sequence": Limit(0, None if last is None else last - 1)}
        if self.task.name == "sequence-classification" and self.config.pad_token_id is None:
            # Without a padding token, transformers cannot find the end of each row, and rejects batches.
            limits["batch"] = Limit(1, 1)
        return limits

    @property
    def trace_sizes(self) -> Mapping[str, int]:
        batch = 1 if "batch" in self.limits else 2
        return {"batch": batch, "sequence": 3 if self.task.with_past else 7, "past_sequence": 5}

    def probes(self) -> list[Probe]:
        from hfexport.export_config.probes.plans import decoder_probes

        return decoder_probes(self)

    def within_positions(self, sizes: Mapping[str, int], further_steps: int = 0) -> dict[str, int]:
        if not self.max_positions or "past_sequence" not in sizes:
            return dict(sizes)
        if "sequence" in self.fixed_sizes:
            past = self.max_positions - further_steps - sizes["sequence"]
            return {**sizes, "past_sequence": min(sizes["past_sequence"], past)}
        room = self.max_positions - further_steps - sizes["past_sequence"]
        return {**sizes, "sequence": max(1, min(sizes["sequence"], room))}
