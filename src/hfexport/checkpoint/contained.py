"""Open files of a checkpoint folder by names from the checkpoint, and reject names that lead out of the folder."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Final

from hfexport.errors import CheckpointError

__all__ = ["file_below", "file_in", "files_beside", "folders_in"]

_BESIDE: Final = (".codes", ".jinja", ".json", ".model", ".py", ".spm", ".tokenizer", ".txt")
"""Extensions of the files that transformers may read in a folder besides the weights."""


def file_in(folder: Path, name: str, *, named_by: str = "") -> Path | None:
    """Return the path of the file `name` in `folder`, or `None` if there is no such file.

    Links may only lead to other files of the folder or, for a snapshot in the Hub's cache, to blobs of that repository.

    Args:
        folder: the checkpoint's folder.
        name: name of a file directly in the folder.
        named_by: file that contains the name, for messages; empty for hfexport's own names.

    Raises:
        CheckpointError: the name or a link leads out of the folder.
    """
    source = f"{folder / named_by}: names" if named_by else f"{folder}: has"
    if not name or name != Path(name).name or "\0" in name:
        raise CheckpointError(
            f"{source} a file {name!r} outside the folder",
            remedy="All files of a checkpoint lie beside its config.json.",
        )
    return _contained(folder, folder / name)


def file_below(folder: Path, name: str, *, named_by: str) -> Path | None:
    """Return the path of the file `name` anywhere below `folder`, or `None` if there is no such file.

    Links of files and folders are followed as in `file_in`.

    Args:
        folder: the checkpoint's folder.
        name: path of the file below the folder, such as `1_Pooling/config.json`.
        named_by: file that contains the name, for messages.

    Raises:
        CheckpointError: the name or a link leads out of the folder.
    """
    place = PurePosixPath(name)
    if place.is_absolute() or ".." in place.parts or "\\" in name or "\0" in name:
        raise CheckpointError(
            f"{folder / named_by}: names a file {name!r} outside the folder", remedy="Restore the file."
        )
    return _contained(folder, folder / place)


def files_beside(folder: Path) -> tuple[Path, ...]:
    """Return the files directly in `folder` that transformers may read besides the weights.

    Raises:
        CheckpointError: a file is a link that leads out of the folder.
    """
    names = sorted(path.name for path in folder.iterdir() if path.suffix in _BESIDE)
    return tuple(path for name in names if (path := file_in(folder, name)) is not None)


def folders_in(folder: Path) -> tuple[Path, ...]:
    """Return the folders directly in `folder`; links to folders are left out."""
    return tuple(sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()))


def _contained(folder: Path, path: Path) -> Path | None:
    """Return `path` if it is a file of `folder`, and `None` if there is no such file."""
    try:
        if not path.is_file():
            return None
        real = path.resolve(strict=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}", remedy="Restore the file.") from error
    if not any(real.is_relative_to(root) for root in _roots(folder)):
        raise CheckpointError(
            f"{path}: is a link that leads out of the folder, or lies behind one",
            remedy="Put the file itself into the folder.",
        )
    return path


def _roots(folder: Path) -> tuple[Path, ...]:
    """Return the allowed folders: `folder`, and for a snapshot in the Hub's cache the repository's `blobs`."""
    real = folder.resolve()
    for parent in real.parents:
        if parent.name == "snapshots" and parent.parent.name.startswith("models--"):
            blobs = parent.parent / "blobs"
            return (real, blobs) if blobs.resolve() == blobs else (real,)
    return (real,)
