"""What can go wrong with a call to the Hub, so that a test can make it happen."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Fault", "Held"]

Kind = Literal["status", "reset", "lost", "slow", "truncated", "stalled", "wrong-bytes", "before", "held"]


@dataclass
class Held:
    """A call that waits: `reached` is set when it came, and it goes on when `released` is."""

    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)


@dataclass
class Fault:
    """One thing that goes wrong.

    Attributes:
        call: name of the call it happens to, such as `commit`, `lfs-upload`, `resolve`; see `server.Handler`.
        kind: `status` answers with one; `reset` drops the connection in the middle of the request; `lost` does the
            work and drops the connection instead of answering; `slow` waits first; `truncated` and `wrong-bytes`
            spoil a download, and `stalled` waits for a test in the middle of one; `before` runs `action` first, such as somebody else's commit; `held` waits for a test.
        times: how often it happens, counted from the first such call.
        skip: how many such calls go well before.
        status: of the answer.
        headers: of the answer.
        seconds: to wait.
        action: run before the call is looked at.
        held: of a call that waits, or a download.
        done: for `held`: wait after the work, before the answer.
        file: only calls whose path ends with it are met; files are fetched side by side, in no order.
    """

    call: str
    kind: Kind
    times: int = 1
    skip: int = 0
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    action: Callable[[], None] | None = None
    held: Held = field(default_factory=Held)
    done: bool = False
    file: str = ""
    met: int = 0

    def happens(self, call: str, path: str) -> bool:
        """Whether it happens to this call; counts it if it is one of those it can happen to."""
        if self.call != call or not path.endswith(self.file):
            return False
        self.met += 1
        return self.skip < self.met <= self.skip + self.times
