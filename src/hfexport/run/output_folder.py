"""The output folder: artifacts appear in it whole or not at all, and a failed run leaves none of ours behind.

A run works in a staging folder `.hfexport-*` inside the output folder, so that finished files are moved and not copied. What
a killed run left is removed by the next run: staging folders that no living process has locked, and files whose journal
says that they were being moved into place or removed.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hfexport._internal.room import STAGING_PREFIX
from hfexport.errors import InputsError
from hfexport.run.report import REPORT_FILE

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
_UNFINISHED_MANIFEST = ".hfexport.json.part"
_WITHDRAWN = ".hfexport.withdrawn.json"
"""The manifest of an export whose files are being removed."""
_INCOMING = ".hfexport.incoming.json"
"""A manifest with the files that are being moved into place."""


@contextmanager
def output_lock(output: Path) -> Iterator[None]:
    """Keep two runs from writing into the same folder.

    Raises:
        InputsError: another run has it.
    """
    descriptor = os.open(output, os.O_RDONLY)
    try:
        if not _lock(descriptor):
            raise InputsError([f"output {str(output)!r} is in use by another run of hfexport"])
        yield
    finally:
        os.close(descriptor)


def without_staging(text: str, output: Path, model: str) -> str:
    """A message in which the checkpoint that a run converted, merged or linked is named as the user named it.

    Args:
        text: that may name paths in a staging folder.
        output: the output folder, which holds the staging folder.
        model: the checkpoint as the user named it.
    """
    folders = {f"{folder}/" for folder in (output, output.absolute(), output.resolve())} - {"./"}
    start = "|".join(re.escape(folder) for folder in sorted(folders, key=len, reverse=True))
    staging = rf"(?:{start})?{re.escape(STAGING_PREFIX)}[^/\s:'\"]+"
    text = re.sub(rf"{staging}/(?:converted|merged|variant)(?:/checkpoint)?", lambda _: model, text)
    return re.sub(rf"{staging}(?:/ready)?", lambda _: str(output), text)


@contextmanager
def staging_folder(parent: Path) -> Iterator[Path]:
    """Make a staging folder in `parent` that is this process's while it lives; it is removed on leaving."""
    folder, descriptor = _locked_folder(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def sweep(output: Path) -> None:
    """Remove what runs that were killed left in the output folder: staging folders and files that no manifest lists.

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
    """Move every file of `ready` to its place; what an earlier run left and this one did not make is removed.

    The earlier manifest goes first and the new one is written after this, so a folder with a manifest is whole.
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
    """Remove the manifest and the report of an earlier run and the files that it lists; any other file stays."""
    (output / REPORT_FILE).unlink(missing_ok=True)
    if (output / _MANIFEST).is_file():
        _finish(output)
        os.replace(output / _MANIFEST, output / _WITHDRAWN)
    _finish(output)


def lists_same_files(output: Path, manifest: Mapping[str, Any]) -> bool:
    """Whether the manifest in the output folder lists the files that `manifest` does, with the same hashes."""
    try:
        here = json.loads((output / _MANIFEST).read_bytes())
        return _entries(here) == _entries(manifest)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _locked_folder(parent: Path) -> tuple[Path, int]:
    """A new staging folder and the descriptor that has it locked.

    Between making and locking it another run may have taken it for one that is left over; then there is none of that name.
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
    """Remove the files of an export that was being withdrawn, and those that were moved into place without a manifest."""
    withdrawn, incoming = output / _WITHDRAWN, output / _INCOMING
    if withdrawn.is_file():
        _remove(output, _listed_files(withdrawn))
        withdrawn.unlink()
    if incoming.is_file():
        if not (output / _MANIFEST).is_file():
            _remove(output, _listed_files(incoming))
        incoming.unlink()


def _remove(output: Path, names: Iterable[str]) -> None:
    root = output.resolve()
    for name in names:
        target = (output / name).resolve()
        if root in target.parents and target.is_file():
            target.unlink()
            if target.parent != root and not any(target.parent.iterdir()):
                target.parent.rmdir()


def _listed_files(path: Path) -> list[str]:
    try:
        return [str(entry["path"]) for entry in _entries(json.loads(path.read_bytes()))]
    except (ValueError, LookupError, TypeError, RecursionError):
        return []


def _entries(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [*manifest["files"], *(file for artifact in manifest["artifacts"] for file in artifact["files"])]
