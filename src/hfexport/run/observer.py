"""Progress and log interface that the pipeline reports to; the console implements it. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Advance", "Observer", "StageOutcome"]

Advance = Callable[[int], None]
"""Function that is called with each amount done, in the unit of the total."""


@dataclass
class StageOutcome:
    """Values that a stage may set before it ends.

    Attributes:
        peak_memory_bytes: peak resident memory of another process that did the work; `None` for this process.
    """

    peak_memory_bytes: int | None = None


class Observer(Protocol):
    """Receives progress, notes and warnings for the user."""

    def stage(self, name: str) -> AbstractContextManager[StageOutcome | None]:
        """Enter a step of the work; leave it when it ends."""
        ...

    def progress(self, name: str, total: int, *, unit: str = "") -> AbstractContextManager[Advance]:
        """Report work of known size; call the returned function with each amount done.

        Args:
            name: description for the user.
            total: total amount, in `unit`.
            unit: `B` for bytes, shown as MB or GB; other units are shown unchanged.
        """
        ...

    def note(self, text: str) -> None:
        """Report a note."""
        ...

    def mask(self, secret: str) -> None:
        """Hide a secret in all output."""
        ...

    def masked(self, text: str) -> str:
        """Return the text with `***` in place of every secret."""
        ...

    def warn(self, text: str) -> None:
        """Report a warning."""
        ...

    def child_output(self, lines: Iterable[str]) -> None:
        """Report the output of another program line by line, as it arrives."""
        ...
