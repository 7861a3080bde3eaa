"""Type of named arrays: the inputs or outputs of a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Arrays"]

Arrays: TypeAlias = "dict[str, NDArray[Any]]"
"""Arrays by the names of the inputs or outputs that they are for."""
