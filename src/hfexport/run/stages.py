"""The steps of a run: told to the observer, and recorded with seconds and peak memory."""

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
    """Gives a context for each step; `entries` grows by one as each ends, however it ends."""

    observer: Observer
    entries: list[StageEntry] = field(default_factory=list)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """One step, from entering to leaving."""
        start = time.perf_counter()
        _reset_peak_memory()
        try:
            with self.observer.stage(name):
                yield
        finally:
            seconds = round(time.perf_counter() - start, 3)
            self.entries.append({"name": name, "seconds": seconds, "peak_memory_bytes": _peak_memory_bytes()})


def _reset_peak_memory() -> None:
    """Start the kernel's high-water mark of this process anew (Linux; elsewhere the mark only grows)."""
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
