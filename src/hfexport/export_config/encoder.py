"""Text encoders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from hfexport.export_config.axes import Axis
from hfexport.export_config.base import ExportConfig, Limit, TensorSpec

if TYPE_CHECKING:
    from hfexport.export_config.probes.probe import Probe

__all__ = ["EncoderConfig"]


class EncoderConfig(ExportConfig):
    """Base class for text encoders: token ids, attention mask, and token types if the model has segment embeddings."""

    token_types: ClassVar[bool] = False

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        axes: tuple[Axis, ...] = ("batch", "sequence")
        if self.task.name == "multiple-choice":
            axes = ("batch", "choice", "sequence")
        specs = [
            TensorSpec("input_ids", axes, "int64", "token_ids"),
            TensorSpec("attention_mask", axes, "int64", "attention_mask"),
        ]
        if self.token_types:
            specs.append(TensorSpec("token_type_ids", axes, "int64", "token_type_ids"))
        return tuple(specs)

    @property
    def max_positions(self) -> int | None:
        """Return the longest sequence that the position table holds; `None` if positions are relative."""
        return int(self.config.max_position_embeddings)

    @property
    def limits(self) -> Mapping[str, Limit]:
        return {"sequence": Limit(1, self.max_positions)}

    @property
    def trace_sizes(self) -> Mapping[str, int]:
        return {"batch": 2, "choice": 3, "sequence": min(7, self.max_positions or 7)}

    def probes(self) -> list[Probe]:
        from hfexport.export_config.probes.plans import encoder_probes

        return encoder_probes(self)
