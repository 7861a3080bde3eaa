"""How a process of hfexport's own starts and ends: quick at both, since a run starts several.

Standard library only.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import Final, NoReturn

__all__ = ["READER_GONE", "collect_rarely", "end_process"]

READER_GONE: Final = 128 + signal.SIGPIPE
"""The shell's exit code where whoever reads the output goes away, as `head` does: no error of ours."""

_ALLOCATIONS = 100_000
"""Objects made before the youngest generation is looked through; Python's own number is 700."""


def collect_rarely() -> None:
    """Look for reference cycles less often: importing torch makes half a million objects that stay, and no garbage."""
    gc.set_threshold(_ALLOCATIONS, 50, 1000)


def end_process(exit_code: int) -> NoReturn:
    """Write out what is buffered and end, without tearing the interpreter down.

    Everything of ours is closed by then; taking torch and its graphs apart, object by object, would take a second or two,
    and may crash.
    """
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        exit_code = READER_GONE
    os._exit(exit_code)
