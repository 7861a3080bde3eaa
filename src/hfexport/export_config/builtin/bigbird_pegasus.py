"""BigBird-Pegasus: full attention for short encoder inputs, block-sparse attention for longer ones."""

from __future__ import annotations

from collections.abc import Mapping

from hfexport.export_config.builtin.bart import BartConfig

__all__ = ["BigBirdPegasusConfig"]


class BigBirdPegasusConfig(BartConfig):
    """BigBird-Pegasus, with BART's interface."""

    model_types = ("bigbird_pegasus",)
    changes_when_called = True

    @property
    def thresholds(self) -> Mapping[str, int]:
        if self.config.attention_type != "block_sparse":
            return {}
        return {"encoder_sequence": (5 + 2 * self.config.num_random_blocks) * self.config.block_size}
