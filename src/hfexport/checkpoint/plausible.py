"""Refuses sizes in config.json that no model has, before anything is built by them: a loop over a billion layers never ends."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from hfexport.errors import CheckpointError

__all__ = ["refuse_absurd_sizes"]

MAX_INTEGER: Final = 2**40
MAX_REPEATS: Final = 2_000
MAX_LABELS: Final = 1_000_000
MAX_DEPTH: Final = 40

_REPEATS: Final = re.compile(r"(layers?|depths?|blocks?|stages?|repeats?)$")
"""Endings of names whose number is how often something is built."""


def refuse_absurd_sizes(path: Path, config: Mapping[str, Any]) -> None:
    """Look at every number of a config.

    Raises:
        CheckpointError: one is far past what any model has.
    """
    for name, value in _integers(path, "", config, 0):
        key = name.rpartition(".")[2]
        limit = MAX_REPEATS if _REPEATS.search(key) else MAX_LABELS if key == "num_labels" else MAX_INTEGER
        if abs(value) > limit:
            raise CheckpointError(
                f"{path}: `{name}` is {value}, and no model has more than {limit}",
                remedy="Use the config.json that was saved with the model.",
            )


def _integers(path: Path, name: str, value: Any, depth: int) -> Iterator[tuple[str, int]]:
    """Every integer below `value`, with the keys that lead to it; an item of a list goes by the list's name."""
    if depth > MAX_DEPTH:
        raise CheckpointError(f"{path}: is nested more than {MAX_DEPTH} deep, as no config is")
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _integers(path, f"{name}.{key}" if name else str(key), item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield from _integers(path, name, item, depth + 1)
    elif isinstance(value, int):
        yield name, value
