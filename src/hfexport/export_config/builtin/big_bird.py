"""BigBird: full attention for short sequences, block-sparse attention for longer ones."""

from __future__ import annotations

from collections.abc import Mapping

from hfexport.export_config.builtin.bert import BertConfig

__all__ = ["BigBirdConfig"]


class BigBirdConfig(BertConfig):
    """BigBird."""

    model_types = ("big_bird",)
    changes_when_called = True

    @property
    def max_positions(self) -> int:
        last = int(self.config.max_position_embeddings)
        # The last block is padded; positions past the end of the table do not exist.
        return last - last % self.config.block_size if self.thresholds else last

    @property
    def thresholds(self) -> Mapping[str, int]:
        if self.config.attention_type != "block_sparse":
            return {}
        return {"sequence": (5 + 2 * self.config.num_random_blocks) * self.config.block_size}
