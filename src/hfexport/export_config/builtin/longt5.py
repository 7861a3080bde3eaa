"""LongT5: T5 whose encoder sees its neighbourhood only, or that and summaries of the blocks of all else."""

from __future__ import annotations

from collections.abc import Mapping

from hfexport.export_config.builtin.t5 import T5Config

__all__ = ["LongT5Config"]


class LongT5Config(T5Config):
    """LongT5."""

    model_types = ("longt5",)

    @property
    def block_length(self) -> int:
        """Tokens of a block; the encoder's attention reaches into the blocks before and after."""
        return int(self.config.local_radius) + 1

    @property
    def thresholds(self) -> Mapping[str, int]:
        return {"encoder_sequence": self.block_length}

    @property
    def encoder_trace_length(self) -> int:
        # A single block, or a whole number of blocks, would have a tracer take that for settled.
        return 2 * self.block_length + 1
