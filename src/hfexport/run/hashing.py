"""Hash files in a thread during the run; a run that fails does not wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from hfexport.checkpoint import sha256

__all__ = ["Hashing"]


class Hashing:
    """A thread that hashes files one by one while this context is open.

    Leaving with an exception stops it in the middle of a file.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._stop = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)

    def start(self, path: Path) -> Future[str]:
        """Hash a file after all earlier ones."""
        return self._pool.submit(self._digest, path)

    def start_all(self, paths: Sequence[Path], known: Mapping[Path, str]) -> Callable[[], dict[Path, str]]:
        """Hash files without a known digest; return a function that waits for all digests, in the order of `paths`."""
        started = {path: self.start(path) for path in paths if path not in known}
        return lambda: {path: known[path] if path in known else started[path].result() for path in paths}

    def _digest(self, path: Path) -> str:
        return sha256(path, stopped=self._stop.is_set)
