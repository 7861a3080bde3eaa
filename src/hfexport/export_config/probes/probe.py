"""One question that validation asks, and its form in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hfexport.export_config import ExportConfig
from hfexport.export_config.probes.values import Padding, make_inputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Probe", "beam_rows"]


def beam_rows(batch: int) -> list[int]:
    """Which row comes into the place of each, as a beam search may have it: one moves, one is doubled, one is lost."""
    return [batch - 1, *(row // 2 for row in range(batch - 1))]


@dataclass(frozen=True)
class Probe:
    """One question that the artifact and the reference model are both asked.

    Attributes:
        name: says what it varies, such as `batch 3, sequence 2, right padding`.
        sizes: sizes of the free axes.
        padding: where rows of a batch are padded; every row by another length.
        seed: seeds the values.
        greedy_steps: tokens to generate greedily through the model's own cache, starting from the probe's prompt.
        reorders: half-way through the greedy steps, rows of the batch and of the cache change places, as in a beam search.
        edge_tokens: put the vocabulary's first and last id, and the padding id in unmasked places, into the ids.
        last_positions: number the tokens so that the last of a full row has the last position that the model knows.
    """

    name: str
    sizes: Mapping[str, int]
    padding: Padding = "none"
    seed: int = 0
    greedy_steps: int = 0
    reorders: bool = False
    edge_tokens: bool = False
    last_positions: bool = False

    def inputs(self, config: ExportConfig, dtype: str) -> dict[str, NDArray[Any]]:
        """The arrays to ask with, by input name; int64, and `dtype` (`fp32` or `fp16`) where floating.

        Generation starts from the inputs of the graph that takes its prompt, and a decoder begins as the model's does.
        """
        arrays = make_inputs(
            config.prompt if self.greedy_steps else config,
            self.sizes,
            dtype,
            padding=self.padding,
            seed=self.seed,
            edge_tokens=self.edge_tokens,
            last_positions=self.last_positions,
        )
        if self.greedy_steps and "decoder_input_ids" in arrays:
            arrays["decoder_input_ids"][:] = config.start_token
        return arrays

    def to_dict(self) -> dict[str, Any]:
        """JSON values from which `from_dict` makes the same probe."""
        return {part.name: getattr(self, part.name) for part in fields(self)} | {"sizes": dict(self.sizes)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Probe:
        return cls(**{**values, "sizes": MappingProxyType(dict(values["sizes"]))})
