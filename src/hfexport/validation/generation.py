"""One step of greedy decoding after another: what the next call is asked, given what the last one answered.

Numpy only. `transformers.generate` counts masks and positions the same way; tests hold the reference to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["next_inputs"]


def next_inputs(
    inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]], tokens: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """The inputs that append `tokens`, with the cache that the last call gave.

    Args:
        inputs: of the last call, by name.
        outputs: of the last call, by name; its `present.*` become `past_key_values.*`.
        tokens: (batch,), one token a row.

    Returns:
        Inputs by name, in the order of `inputs`; `input_ids` and `position_ids` are (batch, 1).
    """
    batch = len(tokens)
    mask = np.concatenate([inputs["attention_mask"], np.ones((batch, 1), dtype=np.int64)], axis=1)
    made: dict[str, NDArray[Any]] = {}
    for name in inputs:
        if name == "input_ids":
            made[name] = np.asarray(tokens, dtype=np.int64).reshape(batch, 1)
        elif name == "attention_mask":
            made[name] = mask
        elif name == "position_ids":
            made[name] = mask.sum(axis=1, keepdims=True, dtype=np.int64) - 1
        elif name.startswith("past_key_values."):
            made[name] = outputs["present." + name.removeprefix("past_key_values.")]
        else:
            raise ValueError(f"input {name}: no rule for the next step of a greedy decoding")
    return made
