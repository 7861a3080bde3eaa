"""Check for free disk space before large writes, and report a full disk as one clear error. Standard library only."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hfexport.errors import ExportError

__all__ = ["STAGING_PREFIX", "is_no_room", "no_room", "require_room", "writing"]

STAGING_PREFIX: Final = ".hfexport-"
"""Prefix of staging folder names; messages show their parent folder instead."""

_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_no_room(error: BaseException) -> bool:
    """Return whether a write failed because the disk, the quota or a file size limit was exhausted."""
    return isinstance(error, OSError) and error.errno in _NO_ROOM


def no_room(folder: Path, needed_bytes: int | None = None) -> ExportError:
    """Return the error for a full disk, with the folder, the bytes needed if known, and the bytes free."""
    shown = next((path.parent for path in (folder, *folder.parents) if path.name.startswith(STAGING_PREFIX)), folder)
    existing = next((path for path in (shown, *shown.parents) if path.is_dir()), Path())
    needed = "" if needed_bytes is None else f"{needed_bytes} bytes are needed, "
    return ExportError(
        f"folder {str(shown)!r} has no room: {needed}{shutil.disk_usage(existing).free} bytes are free",
        remedy="Free some space, or choose an output folder on a larger disk.",
    ).by("machine")


def require_room(folder: Path, needed_bytes: int) -> None:
    """Check that the disk of `folder` has enough free space.

    Raises:
        ExportError: the disk has less free space.
    """
    if shutil.disk_usage(folder).free < needed_bytes:
        raise no_room(folder, needed_bytes)


@contextmanager
def writing(folder: Path, needed_bytes: int) -> Iterator[None]:
    """Check for free space, and convert errors of a full disk inside the block.

    Raises:
        ExportError: the disk has too little space, before or during the write.
    """
    require_room(folder, needed_bytes)
    try:
        yield
    except OSError as error:
        if is_no_room(error):
            raise no_room(folder, needed_bytes) from error
        raise
