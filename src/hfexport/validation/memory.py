"""Find how much memory a process may still take, also in containers. Linux only."""

from __future__ import annotations

from pathlib import Path

__all__ = ["available_bytes"]

UNLIMITED = 1 << 60
"""cgroup v1 reports a number near 2^63 if there is no limit."""


def available_bytes(root: Path = Path("/")) -> int | None:
    """Return the available bytes: the least of those of the machine and of each memory cgroup.

    Args:
        root: folder that contains /proc and /sys.

    Returns:
        `None` if neither reports a value.
    """
    found = [_machine(root), *_cgroups(root)]
    known = [value for value in found if value is not None]
    return max(0, min(known)) if known else None


def _machine(root: Path) -> int | None:
    try:
        text = (root / "proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("MemAvailable:")), None)


def _cgroups(root: Path) -> list[int | None]:
    """Return the remaining memory of each memory cgroup from this process's to the mounted root; v1 and v2."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    left: list[int | None] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
        else:
            continue
        # In a container the path is often the host's, and the mounted root is the container's own group.
        parts = [part for part in path.split("/") if part not in ("", "..")]
        left.extend(_left(base.joinpath(*parts[:depth]), *names) for depth in range(len(parts) + 1))
    return left


def _left(folder: Path, limit_name: str, usage_name: str, prefix: str) -> int | None:
    try:
        limit = int((folder / limit_name).read_text(encoding="ascii"))
        used = int((folder / usage_name).read_text(encoding="ascii"))
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):  # `max`: no limit
        return None
    if limit >= UNLIMITED:
        return None
    # Cached files count as used but can be evicted, except those of a tmpfs, which the kernel counts separately.
    cached = {f"{prefix}active_file", f"{prefix}inactive_file"}
    return limit - used + sum(int(line.split()[1]) for line in lines if line.split()[0] in cached)
