"""Who is told about progress. The pipeline knows this Protocol; the console implements it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

__all__ = ["Observer"]


class Observer(Protocol):
    """Is told what happens, in words for the user."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        """A step of the work that takes a while; entered when it starts, left when it ends."""
        ...

    def note(self, text: str) -> None:
        """Something worth knowing."""
        ...

    def warn(self, text: str) -> None:
        """Something the user should look at."""
        ...
