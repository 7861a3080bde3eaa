"""Output folder: artifacts appear in it as a whole or not at all, and a failed run leaves none behind.

A run works in a staging folder `.hfexport-*` inside the output folder, so that finished files are moved and not copied.
The next run removes the remains of a killed run: staging folders that no living process has locked, and files that a
journal lists as being moved or removed.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hfexport._internal.room import STAGING_PREFIX
from hfexport.errors import InputsError
from hfexport.run.report import REPORT_FILE

if TYPE_CHECKING:
    from hfexport.manifest.model import Manifest

__all__ = [
    "STAGING_PREFIX",
    "install",
    "lists_same_files",
    "output_lock",
    "remove_abandoned",
    "staging_folder",
    "sweep",
    "withdraw",
    "without_staging",
]

_MANIFEST = "hfexport.json"
_REPORT = "report.html"
_UNFINISHED_MANIFEST = ".hfexport.json.part"
_WITHDRAWN = ".hfexport.withdrawn.json"
"""Journal: the manifest of an export whose files are being removed."""
_INCOMING = ".hfexport.incoming.json"
"""Journal: a manifest of the files that are being moved into place."""


@contextmanager
def output_lock(output: Path) -> Iterator[None]:
    """Prevent two runs from writing to the same folder.

    Raises:
        InputsError: another run holds the lock.
    """
    descriptor = os.open(output, os.O_RDONLY)
    try:
        if not _lock(descriptor):
            raise InputsError([f"output {str(output)!r} is in use by another run of hfexport"])
        yield
    finally:
        os.close(descriptor)


def without_staging(text: str, output: Path, model: str) -> str:
    """Replace paths of converted, merged or linked checkpoints in a message by the user's name of the model.

    Args:
        text: message that may contain paths in a staging folder.
        output: output folder, which contains the staging folder.
        model: checkpoint as the user named it.
    """
    folders = {f"{folder}/" for folder in (output, output.absolute(), output.resolve())} - {"./"}
    start = "|".join(re.escape(folder) for folder in sorted(folders, key=len, reverse=True))
    staging = rf"(?:{start})?{re.escape(STAGING_PREFIX)}[^/\s:'\"]+"
    text = re.sub(rf"{staging}/(?:converted|merged|variant)(?:/checkpoint)?", lambda _: model, text)
    return re.sub(rf"{staging}(?:/ready)?", lambda _: str(output), text)


@contextmanager
def staging_folder(parent: Path) -> Iterator[Path]:
    """Make a staging folder in `parent` that is locked while this process lives; it is removed on exit."""
    folder, descriptor = _locked_folder(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def sweep(output: Path) -> None:
    """Remove remains of killed runs from the output folder: staging folders and files that no manifest lists.

    Staging folders that a living process has locked stay. The caller holds the folder's lock.
    """
    remove_abandoned(output)
    (output / _UNFINISHED_MANIFEST).unlink(missing_ok=True)
    _finish(output)


def remove_abandoned(parent: Path) -> None:
    """Remove the staging folders in `parent` that no living process has locked."""
    for path in parent.glob(f"{STAGING_PREFIX}*"):
        if path.is_symlink() or not path.is_dir():
            continue
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                if _lock(descriptor):
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(descriptor)


def install(ready: Path, output: Path) -> None:
    """Move every file of `ready` into place, and remove files of an earlier run that this run did not make.

    The earlier manifest is removed first and the new one is written last, so a folder with a manifest is complete.
    """
    withdraw(output)
    files = [path for path in sorted(ready.rglob("*")) if path.is_file()]
    names = [path.relative_to(ready).as_posix() for path in files]
    (output / _INCOMING).write_text(
        json.dumps({"files": [{"path": name} for name in names], "artifacts": []}), encoding="utf-8"
    )
    for path, name in zip(files, names, strict=True):
        target = output / name
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)


def withdraw(output: Path) -> None:
    """Remove the manifest and the report of an earlier run and the files that it lists; other files stay."""
    (output / REPORT_FILE).unlink(missing_ok=True)
    if (output / _MANIFEST).is_file():
        _finish(output)
        if _has_report(output / _MANIFEST):
            (output / _REPORT).unlink(missing_ok=True)
        os.replace(output / _MANIFEST, output / _WITHDRAWN)
    _finish(output)


def lists_same_files(output: Path, manifest: Manifest) -> bool:
    """Return whether the manifest in the output folder lists the same files and hashes as `manifest`."""
    from hfexport.manifest.entries import listed_files

    try:
        here: Manifest = json.loads((output / _MANIFEST).read_bytes())
        return listed_files(here) == listed_files(manifest)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _locked_folder(parent: Path) -> tuple[Path, int]:
    """Make and lock a staging folder; return it and the lock's file descriptor.

    Before it is locked, another run may remove it as abandoned; then another folder is made.
    """
    while True:
        folder = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=parent))
        with suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if folder.is_dir():
                return folder, descriptor
            os.close(descriptor)


def _finish(output: Path) -> None:
    """Finish an interrupted removal, and remove files that were moved into place without a manifest."""
    withdrawn, incoming = output / _WITHDRAWN, output / _INCOMING
    if withdrawn.is_file():
        _remove(output, _listed_files(withdrawn))
        withdrawn.unlink()
    if incoming.is_file():
        if not (output / _MANIFEST).is_file():
            _remove(output, _listed_files(incoming))
        incoming.unlink()


def _has_report(manifest: Path) -> bool:
    """Return whether the run of a manifest wrote a report, which no manifest lists."""
    try:
        return bool(json.loads(manifest.read_bytes())["inputs"]["report"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False


def _remove(output: Path, names: Iterable[str]) -> None:
    root = output.resolve()
    for name in names:
        target = (output / name).resolve()
        if root in target.parents and target.is_file():
            target.unlink()
            if target.parent != root and not any(target.parent.iterdir()):
                target.parent.rmdir()


def _listed_files(path: Path) -> list[str]:
    from hfexport.manifest.entries import listed_files

    try:
        return [str(entry["path"]) for entry in listed_files(json.loads(path.read_bytes()))]
    except (ValueError, LookupError, TypeError, RecursionError):
        return []
