"""Write sizes for people."""

from __future__ import annotations

__all__ = ["size_text"]


def size_text(size_bytes: float) -> str:
    """Write a size in bytes as kB, MB or GB (powers of 1,000)."""
    if size_bytes >= 1e9:
        return f"{size_bytes / 1e9:.1f} GB"
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.0f} kB"
