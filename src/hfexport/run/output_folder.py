"""The output folder: artifacts appear in it whole or not at all, and a failed run leaves none of ours behind."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hfexport.errors import InputsError

__all__ = ["install", "output_lock", "withdraw"]

_MANIFEST = "hfexport.json"


@contextmanager
def output_lock(output: Path) -> Iterator[None]:
    """Keep two runs from writing into the same folder.

    Raises:
        InputsError: another run has it.
    """
    descriptor = os.open(output, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputsError([f"output {str(output)!r} is in use by another run of hfexport"]) from error
        yield
    finally:
        os.close(descriptor)


def install(ready: Path, output: Path) -> None:
    """Move every file of `ready` to its place; what an earlier run left and this one did not make is removed.

    The earlier manifest goes first and the new one is written after this, so a folder with a manifest is whole.
    """
    withdraw(output)
    for path in sorted(ready.rglob("*")):
        if path.is_file():
            target = output / path.relative_to(ready)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)


def withdraw(output: Path) -> None:
    """Remove the manifest of an earlier run and the files it lists; any other file stays."""
    path = output / _MANIFEST
    if not path.is_file():
        return
    listed = _listed_files(path)
    path.unlink()
    root = output.resolve()
    for name in listed:
        target = (output / name).resolve()
        if root in target.parents and target.is_file():
            target.unlink()
            if target.parent != root and not any(target.parent.iterdir()):
                target.parent.rmdir()


def _listed_files(path: Path) -> list[str]:
    try:
        manifest = json.loads(path.read_bytes())
        entries = [*manifest["files"], *(file for artifact in manifest["artifacts"] for file in artifact["files"])]
        return [str(entry["path"]) for entry in entries]
    except (ValueError, KeyError, TypeError):
        return []
