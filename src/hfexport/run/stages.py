"""Steps of a run: reported to the observer, and recorded with seconds and peak memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from hfexport._internal.peak_memory import own_peak_bytes, reset_peak
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
        reset_peak()
        try:
            with self.observer.stage(name):
                yield
        finally:
            seconds = round(time.perf_counter() - start, 3)
            self.entries.append({"name": name, "seconds": seconds, "peak_memory_bytes": own_peak_bytes() or 0})
