"""Entry point of the process of one model of a fleet; it ends with the process that started it."""

from __future__ import annotations

import os

from hfexport._internal.confined import guard_memory
from hfexport._internal.process import collect_rarely, die_with, end_process
from hfexport.cli.main import main as run

__all__ = ["main"]


def main(parent: str, *words: str) -> None:
    """Run a command line of hfexport.

    Args:
        parent: id of the starting process.
        words: command line.
    """
    collect_rarely()
    die_with(int(parent) if int(parent) != os.getpid() else os.getppid())
    guard_memory()
    end_process(run(list(words)))
