"""Progress and log interface that the pipeline reports to; the console implements it. Standard library only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

__all__ = ["Advance", "Observer", "StageOutcome", "peak_memory_bytes"]

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


def peak_memory_bytes() -> int | None:
    """Return the peak resident memory of this process or of a child it has waited for, whichever is larger.

    The value only rises: at the end of a stage it covers the run so far, unless it was reset.

    Returns:
        Bytes, including pages of mapped files; `None` if the platform does not report it.
    """
    try:
        import resource
    except ImportError:
        return None
    scale = 1 if sys.platform == "darwin" else 1024
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * scale
    return max(_own_peak_bytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale), children)


def _own_peak_bytes(fallback: int) -> int:
    """Return `VmHWM`; unlike `ru_maxrss`, it does not include the memory of the process that started this one."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return fallback
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return fallback
