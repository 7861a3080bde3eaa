"""Steps of a run: reported to the observer, and recorded with seconds and peak memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hfexport.manifest.model import StageEntry
from hfexport.run.observer import Observer

__all__ = ["Stages"]


@dataclass(frozen=True)
class Stages:
    """Context for each step; an entry is added to `entries` when the step ends or fails."""

    observer: Observer
    entries: list[StageEntry] = field(default_factory=list)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Run one step as a context."""
        start = time.perf_counter()
        _reset_peak_memory()
        try:
            with self.observer.stage(name):
                yield
        finally:
            seconds = round(time.perf_counter() - start, 3)
            self.entries.append({"name": name, "seconds": seconds, "peak_memory_bytes": _peak_memory_bytes()})


def _reset_peak_memory() -> None:
    """Reset the kernel's peak memory value of this process (Linux; elsewhere the value only rises)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def _peak_memory_bytes() -> int:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0)
