"""LongT5: T5 whose encoder attends locally, or locally and to summaries of all blocks."""

from __future__ import annotations

from collections.abc import Mapping

from hfexport.export_config.builtin.t5 import T5Config

__all__ = ["LongT5Config"]


class LongT5Config(T5Config):
    """LongT5."""

    model_types = ("longt5",)

    @property
    def block_length(self) -> int:
        """Return the number of tokens per block. The encoder attends to its own block and to both neighbours."""
        return int(self.config.local_radius) + 1

    @property
    def thresholds(self) -> Mapping[str, int]:
        return {"encoder_sequence": self.block_length}

    @property
    def encoder_trace_length(self) -> int:
        # Neither one block nor a whole number of blocks: a trace would record either as a constant.
        return 2 * self.block_length + 1
