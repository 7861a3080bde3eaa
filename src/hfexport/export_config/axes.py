"""Axes of inputs and outputs: a free axis by its name, a sum of free axes, or a fixed size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

__all__ = ["Axis", "axis_size", "names_in", "names_of"]

Axis = str | int
"""A free axis by its name, a sum of free axes such as `past_sequence + sequence`, or a fixed size."""


class _HasAxes(Protocol):
    @property
    def axes(self) -> tuple[Axis, ...]: ...


def names_in(axis: Axis) -> tuple[str, ...]:
    """Return the names of the free axes that `axis` is the sum of; empty for a fixed size."""
    return tuple(axis.split(" + ")) if isinstance(axis, str) else ()


def names_of(specs: Iterable[_HasAxes]) -> tuple[str, ...]:
    """Return the names of all free axes of inputs or outputs, each once, in order of first use."""
    return tuple(dict.fromkeys(name for spec in specs for axis in spec.axes for name in names_in(axis)))


def axis_size(axis: Axis, sizes: Mapping[str, int]) -> int:
    """Return the size of `axis` where the free axes have `sizes`."""
    return axis if isinstance(axis, int) else sum(sizes[name] for name in names_in(axis))
