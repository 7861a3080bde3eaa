"""Peak resident memory of this process."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["own_peak_bytes", "peak_memory_bytes", "reset_peak"]


def own_peak_bytes() -> int | None:
    """Return `VmHWM`, the peak resident memory of this process; `None` if the system does not report it.

    Unlike `ru_maxrss`, it does not include the memory of the process that started this one.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), None)


def peak_memory_bytes() -> int | None:
    """Return the peak resident memory of this process or of a child it has waited for, whichever is larger.

    The value only rises: at the end of a stage it covers the run so far, unless it was reset.

    Returns:
        Bytes, including pages of mapped files; `None` if the platform does not report it.
    """
    try:
        import resource
    except ImportError:
        return None
    scale = 1 if sys.platform == "darwin" else 1024
    own = own_peak_bytes()
    if own is None:
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * scale)


def reset_peak() -> None:
    """Reset the kernel's peak value of this process (Linux; elsewhere the value only rises)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return
