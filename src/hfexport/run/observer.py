"""Who is told about progress. The pipeline knows this Protocol; the console implements it. Standard library only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

__all__ = ["Advance", "Observer", "StageOutcome", "peak_memory_bytes"]

Advance = Callable[[int], None]
"""Told how much more is done, in the unit of the total."""


@dataclass
class StageOutcome:
    """What a stage may tell before it ends.

    Attributes:
        peak_memory_bytes: the most memory that was resident, where another process did the work; `None`: it was this one.
    """

    peak_memory_bytes: int | None = None


class Observer(Protocol):
    """Is told what happens, in words for the user."""

    def stage(self, name: str) -> AbstractContextManager[StageOutcome | None]:
        """A step of the work that takes a while; entered when it starts, left when it ends."""
        ...

    def progress(self, name: str, total: int, *, unit: str = "") -> AbstractContextManager[Advance]:
        """Work whose size is known; call what it gives with each part that is done.

        Args:
            name: in words for the user.
            total: how much there is to do, in `unit`.
            unit: `B` for bytes, shown as MB or GB; any other word is shown as it is.
        """
        ...

    def note(self, text: str) -> None:
        """Something worth knowing."""
        ...

    def mask(self, secret: str) -> None:
        """Something that must never be shown."""
        ...

    def masked(self, text: str) -> str:
        """Return the text with `***` in place of everything that must never be shown."""
        ...

    def warn(self, text: str) -> None:
        """Something the user should look at."""
        ...

    def child_output(self, lines: Iterable[str]) -> None:
        """What another program prints, line by line as it comes."""
        ...


def peak_memory_bytes() -> int | None:
    """The most memory that was resident so far, in this process or in a child it has waited for, whichever held more.

    A mark that rises: at the end of a stage it says what the run needed up to there, unless it was reset in between.

    Returns:
        Bytes, pages of mapped files included; `None` where the platform does not tell.
    """
    try:
        import resource
    except ImportError:
        return None
    scale = 1 if sys.platform == "darwin" else 1024
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * scale
    return max(_own_peak_bytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale), children)


def _own_peak_bytes(fallback: int) -> int:
    """`VmHWM`: unlike `ru_maxrss` it does not carry over what the process that started this one had needed."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return fallback
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return fallback
