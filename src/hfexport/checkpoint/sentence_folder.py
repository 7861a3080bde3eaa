"""Find the folders of the modules of a sentence-transformers folder by its modules.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from hfexport.checkpoint.contained import file_in
from hfexport.checkpoint.json_file import read_bounded
from hfexport.checkpoint.lfs import refuse_pointer
from hfexport.errors import CheckpointError

__all__ = ["MODULES_FILE", "Module", "at_the_root", "read_modules", "transformer_place"]

MODULES_FILE: Final = "modules.json"

_TRANSFORMERS: Final = ("Transformer", "MLMTransformer")
"""Types of a first module that is a transformers model."""


@dataclass(frozen=True)
class Module:
    """An entry of modules.json.

    Attributes:
        kind: name of the class, such as `Pooling`.
        place: folder of the module's files, relative to modules.json; empty for the folder of modules.json.
    """

    kind: str
    place: str


def read_modules(path: Path) -> tuple[Module, ...]:
    """Return the modules that a modules.json lists, in order.

    Raises:
        CheckpointError: the file is damaged, or names a folder outside its own.
    """
    file_in(path.parent, path.name)
    refuse_pointer(path)
    try:
        entries = json.loads(read_bounded(path))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: is not valid JSON: {error}", remedy="Correct or restore the file.") from error
    fits = isinstance(entries, list) and all(
        isinstance(entry, dict) and {"type", "path"} <= set(entry) for entry in entries
    )
    if not fits or not all(_inside(str(entry["path"])) for entry in entries):
        raise CheckpointError(f"{path}: is no list of modules with type and path", remedy="Restore the file.")
    return tuple(Module(str(entry["type"]).rpartition(".")[2], str(entry["path"]).strip("/")) for entry in entries)


def transformer_place(has: Callable[[str], bool], modules: Callable[[], Sequence[Module]]) -> str:
    """Return the subfolder with the transformer of a sentence-transformers folder; empty for the folder itself.

    Args:
        has: returns whether the folder has a file, by relative path.
        modules: reads modules.json.

    Raises:
        CheckpointError: modules.json is damaged, and the folder has no config.json.
    """
    whole = has("config.json") or has("adapter_config.json")
    if not has(MODULES_FILE):
        return ""
    try:
        listed = modules()
    except CheckpointError:
        if whole:
            return ""  # only task sentence-embedding needs modules.json
        raise
    place = listed[0].place if listed and (listed[0].kind in _TRANSFORMERS or not whole) else ""
    return place if place and (has(f"{place}/config.json") or has(f"{place}/adapter_config.json")) else ""


def at_the_root(content: bytes) -> bytes:
    """Return a modules.json whose transformer is in its own folder, as in an export; unchanged if it already is."""
    try:
        entries: list[dict[str, Any]] = json.loads(content)
        if not entries or not entries[0]["path"]:
            return content
    except (ValueError, LookupError, TypeError, RecursionError):
        return content  # damaged; only task sentence-embedding needs modules.json
    return (json.dumps([{**entries[0], "path": ""}, *entries[1:]], indent=2) + "\n").encode()


def _inside(place: str) -> bool:
    return not place.startswith(("/", "\\")) and ".." not in PurePosixPath(place).parts
