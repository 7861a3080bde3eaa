"""Settings of the C library's allocator."""

from __future__ import annotations

import ctypes
from typing import Final

__all__ = ["return_freed_blocks"]

_MMAP_THRESHOLD: Final = -3
"""`M_MMAP_THRESHOLD` of glibc's malloc.h."""

LARGE_BYTES: Final = 2**20


def return_freed_blocks() -> None:
    """Have glibc return every freed block of 1 MiB or more to the system at once; no effect on other C libraries.

    By default glibc keeps freed blocks of up to 32 MiB, and a process that allocates and frees many sizes, such as
    weights that are cast one at a time, grows by fragmentation. See `mallopt(3)`.
    """
    try:
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, LARGE_BYTES)
    except (AttributeError, OSError):
        return
