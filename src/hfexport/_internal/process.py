"""How a process of hfexport's own starts and ends: quick at both, since a run starts several.

Standard library only.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

__all__ = ["Limits", "collect_rarely", "die_with", "end_process", "python_command"]

PR_SET_PDEATHSIG: Final = 1
"""From linux/prctl.h: the signal a process gets when the thread that started it ends."""

_ALLOCATIONS = 100_000
"""Objects made before the youngest generation is looked through; Python's own number is 700."""


_BOOTSTRAP: Final = (
    "import sys; root = sys.argv.pop(1); sys.path.insert(0, root); import hfexport; sys.path.remove(root); "
    "from importlib import import_module; import_module(sys.argv.pop(1)).main(*sys.argv[1:])"
)
"""Finds the very package that this process runs, installed or not. `-m` would look in the working directory first,
and leaving `root` in the path would let it shadow the standard library."""


@dataclass(frozen=True)
class Limits:
    """What a child may use that reads what nobody vouches for.

    Attributes:
        memory_bytes: of its own: pages of mapped files that it only reads do not count.
        cpu_s: seconds of all its threads together.
        file_bytes: of each file that it writes; `None`: any size.
    """

    memory_bytes: int
    cpu_s: int
    file_bytes: int | None = None

    def impose(self) -> None:
        """Hold this process to them from now on."""
        limits = {resource.RLIMIT_DATA: self.memory_bytes, resource.RLIMIT_CPU: self.cpu_s}
        if self.file_bytes is not None:
            limits[resource.RLIMIT_FSIZE] = self.file_bytes
        for kind, wanted in limits.items():
            hard = resource.getrlimit(kind)[1]
            resource.setrlimit(kind, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def python_command(module: str, *arguments: str) -> list[str]:
    """The command that runs `main(*arguments)` of a module of hfexport in a new interpreter."""
    root = str(Path(__file__).resolve().parents[2])
    # -I where this process is isolated; otherwise -P alone, so that PYTHONPATH counts but the working directory does not.
    isolation = "-I" if sys.flags.isolated else "-P"
    return [sys.executable, isolation, "-c", _BOOTSTRAP, root, module, *arguments]


def collect_rarely() -> None:
    """Look for reference cycles less often: importing torch makes half a million objects that stay, and no garbage."""
    gc.set_threshold(_ALLOCATIONS, 50, 1000)


def end_process(exit_code: int) -> NoReturn:
    """Write out what is buffered and end, without tearing the interpreter down.

    Everything of ours is closed by then; taking torch and its graphs apart, object by object, would take a second or two,
    and may crash.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(
            OSError, ValueError, AttributeError
        ):  # nobody reads it, it is closed, or there is none
            stream.flush()
    os._exit(exit_code)


def die_with(parent: int) -> None:
    """Ask Linux to kill this process when its parent ends, and end now if the parent already has."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
