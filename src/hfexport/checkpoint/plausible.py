"""Reject implausible sizes in config.json before building the model; a loop over a billion layers would never end."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from hfexport.errors import CheckpointError

__all__ = ["refuse_absurd_sizes"]

MAX_INTEGER: Final = 2**40
MAX_REPEATS: Final = 2_000
MAX_PARTS: Final = 2**14
MAX_PIXELS: Final = 2**12
MAX_LABELS: Final = 1_000_000
MAX_DEPTH: Final = 40

_LIMITS: Final = (
    (re.compile(r"(layers?|depths?|blocks?|stages?|repeats?)$"), MAX_REPEATS),
    (re.compile(r"(branch(es)?|codebooks?|convs?|experts?|groups?|heads?|levels?|networks?|scales?)$"), MAX_PARTS),
    (re.compile(r"(image|crop|pretrain_img)_size$"), MAX_PIXELS),
    (re.compile(r"^num_labels$"), MAX_LABELS),
    (re.compile(r""), MAX_INTEGER),
)
"""Limits by the ending of a key: number of layers, number of parts, image size; and a limit for every integer."""


def refuse_absurd_sizes(path: Path, config: Mapping[str, Any]) -> None:
    """Check every integer of a config.

    Raises:
        CheckpointError: a number is far larger than that of any model.
    """
    for name, value in _integers(path, "", config, 0):
        key = name.rpartition(".")[2]
        limit = next(limit for pattern, limit in _LIMITS if pattern.search(key))
        if abs(value) > limit:
            raise CheckpointError(
                f"{path}: `{name}` is {value}, and no model has more than {limit}",
                remedy="Use the config.json that was saved with the model.",
            )


def _integers(path: Path, name: str, value: Any, depth: int) -> Iterator[tuple[str, int]]:
    """Yield every integer in `value` with its path of keys; items of a list have the name of the list."""
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
