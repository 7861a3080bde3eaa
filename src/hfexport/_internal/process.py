"""Start and end hfexport's own Python processes quickly, since a run starts several.

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
"""From linux/prctl.h: signal that a process receives when the thread that started it ends."""

_ALLOCATIONS = 100_000
"""Number of allocations before the garbage collector examines the youngest generation; Python's default is 700."""


_BOOTSTRAP: Final = (
    "import sys; root = sys.argv.pop(1); sys.path.insert(0, root); import hfexport; sys.path.remove(root); "
    "from importlib import import_module; import_module(sys.argv.pop(1)).main(*sys.argv[1:])"
)
"""Imports the same package as this process, installed or not. `-m` would search the working directory first, and
keeping `root` in the path would let its modules shadow the standard library."""


@dataclass(frozen=True)
class Limits:
    """Resource limits of a child that reads untrusted files.

    Attributes:
        memory_bytes: private memory; pages of mapped files that are only read do not count.
        cpu_s: CPU seconds of all threads together.
        file_bytes: size of each file that it writes; `None` for no limit.
    """

    memory_bytes: int
    cpu_s: int
    file_bytes: int | None = None

    def impose(self) -> None:
        """Apply the limits to this process."""
        limits = {resource.RLIMIT_DATA: self.memory_bytes, resource.RLIMIT_CPU: self.cpu_s}
        if self.file_bytes is not None:
            limits[resource.RLIMIT_FSIZE] = self.file_bytes
        for kind, wanted in limits.items():
            hard = resource.getrlimit(kind)[1]
            resource.setrlimit(kind, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def python_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs `main(*arguments)` of a module of hfexport in a new interpreter."""
    root = str(Path(__file__).resolve().parents[2])
    # -I if this process is isolated. Otherwise -P, so that PYTHONPATH counts but the working directory does not.
    isolation = "-I" if sys.flags.isolated else "-P"
    return [sys.executable, isolation, "-c", _BOOTSTRAP, root, module, *arguments]


def collect_rarely() -> None:
    """Run the garbage collector less often: importing torch creates half a million permanent objects and no garbage."""
    gc.set_threshold(_ALLOCATIONS, 50, 1000)


def end_process(exit_code: int) -> NoReturn:
    """Flush the standard streams and exit without shutting the interpreter down.

    All files are closed by then. Destroying torch and its graphs object by object would take a second or two, and may
    crash.
    """
    for stream in (sys.stdout, sys.stderr):
        # Flushing fails if the reader is gone, or if the stream is closed or missing.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(exit_code)


def die_with(parent: int) -> None:
    """Ask Linux to kill this process when its parent ends; exit now if the parent has already ended."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
