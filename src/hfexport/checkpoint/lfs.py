"""Git LFS pointers: small text files that a clone holds for files that were not downloaded.

Format: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from hfexport.errors import CheckpointError

__all__ = ["refuse_pointer"]

_START: Final = b"version https://git-lfs"


def refuse_pointer(path: Path, start: bytes | None = None) -> None:
    """Raise an error if a file is a Git LFS pointer.

    Args:
        path: the file.
        start: first bytes of the file (eight or more), if already read.

    Raises:
        CheckpointError: the file is a pointer, or cannot be read.
    """
    try:
        if start is None or (start[:8] == _START[:8] and len(start) < len(_START)):
            with path.open("rb") as file:
                start = file.read(len(_START))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}", remedy="Restore the file.") from error
    if start.startswith(_START):
        raise CheckpointError(
            f"{path}: is a Git LFS pointer, not the file itself",
            remedy="Run `git lfs pull`, or check out with `lfs: true`.",
        )
