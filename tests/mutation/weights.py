"""Changes of one stored weight, the same for both formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

__all__ = ["changes"]

Array = np.ndarray[Any, Any]


def changes(values: Array) -> Iterator[tuple[str, str, Callable[[Array], Array]]]:
    """Kind, detail and change of each mutant of `values`; those that would change nothing are left out."""
    rows = values.shape[0]
    found: list[tuple[str, str, Callable[[Array], Array]]] = [
        ("weight scaled by 1 %", "", lambda old: (old * 1.01).astype(old.dtype)),
        ("weight zeroed", "", np.zeros_like),
        ("weight rolled", "by one row", lambda old: np.roll(old, 1, axis=0)),
        ("weight row changed", f"row {rows - 1} zeroed", lambda old: _with_row(old, rows - 1, 0.0)),
        ("weight row changed", f"row {rows // 2} times 1.5", lambda old: _with_row(old, rows // 2, 1.5)),
        ("weight element changed", f"element {values.size // 3}", lambda old: _with_element(old, values.size // 3)),
    ]
    if values.ndim == 2 and values.shape[0] == values.shape[1]:
        found.append(("weight transposed", "", lambda old: np.ascontiguousarray(old.T)))
    for kind, detail, change in found:
        if not np.array_equal(change(values), values):
            yield kind, detail, change


def _with_row(old: Array, row: int, factor: float) -> Array:
    new = np.array(old)
    new[row] *= np.asarray(factor, old.dtype)
    return new


def _with_element(old: Array, index: int) -> Array:
    new = np.array(old)
    new.reshape(-1)[index] += np.asarray(0.05, old.dtype)
    return new
