"""Inputs for one call of a model, described by the sizes of their axes and a seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hfexport.export_config import ExportConfig
from hfexport.export_config.arrays import Arrays
from hfexport.export_config.probes.values import Padding, make_inputs

__all__ = ["Probe", "beam_rows"]


def beam_rows(batch: int) -> list[int]:
    """Return the source row of each row, as in a beam search: one row moves, one is doubled, one is dropped."""
    return [batch - 1, *(row // 2 for row in range(batch - 1))]


@dataclass(frozen=True)
class Probe:
    """Inputs that both the artifact and the reference model are run on.

    Attributes:
        name: description of what the probe varies, such as `batch 3, sequence 2, right padding`.
        sizes: sizes of the free axes.
        padding: side on which rows are padded; each row has another length.
        seed: seed of the values.
        greedy_steps: number of tokens to generate greedily with the model's cache, starting from the probe's prompt.
        reorders: rows of the batch and the cache change places half-way through the greedy steps, as in a beam search.
        edge_tokens: include the first and last id of the vocabulary, and the padding id in unmasked places.
        last_positions: number tokens so that a full row ends at the model's last position.
    """

    name: str
    sizes: Mapping[str, int]
    padding: Padding = "none"
    seed: int = 0
    greedy_steps: int = 0
    reorders: bool = False
    edge_tokens: bool = False
    last_positions: bool = False

    def inputs(self, config: ExportConfig, dtype: str) -> Arrays:
        """Return the input arrays by name: int64, and `dtype` (`fp32` or `fp16`) for floating inputs.

        Generation starts from the inputs of the graph that takes the prompt, and a decoder starts with the model's
        start token.
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
