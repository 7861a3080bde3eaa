"""Decide whether the Hub already holds an export with the same source, inputs and versions, and intact files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, cast

from hfexport.checkpoint import sha256
from hfexport.errors import ValidationError
from hfexport.hub.client import Hub, HubFile
from hfexport.hub.source import SourceIdentity
from hfexport.manifest.entries import MANIFEST_FILE, listed_files, source_of
from hfexport.manifest.model import BaseEntry, FileEntry, Manifest, SourceEntry

__all__ = ["Place", "difference", "published_manifest"]

MAX_MANIFEST_BYTES: Final = 2**26

_WRITTEN_BY_MERGING: Final = frozenset(("config.json", "generation_config.json"))
"""Files that merging an adapter into its base writes, even if neither has them."""


@dataclass(frozen=True)
class Place:
    """A commit that may hold a published export in folder `prefix` (ends with a slash; empty for the root)."""

    hub: Hub
    repository: str
    commit: str
    tree: Mapping[str, HubFile]
    prefix: str


def published_manifest(place: Place) -> Manifest | None:
    """Read the manifest of a published export; return `None` if there is none or it is not valid JSON."""
    entry = place.tree.get(place.prefix + MANIFEST_FILE)
    if entry is None or entry.size_bytes > MAX_MANIFEST_BYTES:
        return None
    path = place.hub.download(place.repository, place.commit, [entry.path]) / entry.path
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None
    return cast("Manifest", found) if isinstance(found, dict) else None  # `difference` tolerates wrong contents


def difference(
    found: Manifest,
    wanted: Manifest,
    deciding: Mapping[str, str],
    source: SourceIdentity,
    base: Callable[[], SourceIdentity | None],
    place: Place | Path,
) -> str | None:
    """Say in a few words why an export does not satisfy the request; return `None` if it does.

    Args:
        found: manifest of the export.
        wanted: new manifest with the requested inputs and the versions that would be used.
        deciding: input names by manifest key, for the inputs that decide the result.
        source: description of the model that would be exported.
        base: returns the description of an adapter's base model; `None` if the source is no adapter.
        place: commit and folder of a published export, or the output folder of one on this machine.
    """
    try:
        return (
            _other_making(found, wanted, deciding)
            or _other_source(source_of(found), source)
            or _other_along(found, source, base)
            or (_other_local_files(found, place) if isinstance(place, Path) else _other_files(found, place))
        )
    except (KeyError, TypeError, AttributeError, ValidationError):
        return "its manifest has another format"


def _other_making(found: Manifest, wanted: Manifest, deciding: Mapping[str, str]) -> str | None:
    if (found["schema_version"], found["producer"]) != (wanted["schema_version"], wanted["producer"]):
        return "it was made by another version of hfexport"
    good = ("passed", "incomplete") if wanted["inputs"]["validate"] == "strict" else ("not_validated",)
    if found["verdict"] not in good or not found["artifacts"]:
        return f"its verdict is {found['verdict']}"
    if wanted["inputs"]["export_config"] is not None:
        return "the user's export config may have changed since"
    if wanted["inputs"].get("eval_data") is not None:
        return "the data for variants may have changed since"
    for attribute, name in deciding.items():
        before, now = found["inputs"].get(attribute), wanted["inputs"][attribute]
        if isinstance(before, list) and isinstance(now, list):
            before, now = sorted(map(str, before)), sorted(map(str, now))  # the order of formats does not matter
        if before != now:
            return f"its {name} was {before!r}"
    versions = {name for name in {*found["versions"], *wanted["versions"]} if _differs(found, wanted, name)}
    return f"it was made with another {', '.join(sorted(versions))}" if versions else None


def _differs(found: Manifest, wanted: Manifest, name: str) -> bool:
    return bool(found["versions"].get(name) != wanted["versions"].get(name))


def _other_source(found: SourceEntry | BaseEntry, source: SourceIdentity) -> str | None:
    before, now = found["hub"], source["hub"]
    if (before is None) != (now is None):
        return "it was made from somewhere else"
    if before is not None and now is not None:
        names: tuple[Literal["repository", "commit", "subfolder"], ...] = ("repository", "commit", "subfolder")
        same = all(before[name] == now[name] for name in names)
        return None if same else f"it was made from commit {before['commit'][:12]}"
    return None if _hashes(found["files"]) == source["files"] else "the checkpoint has changed"


def _other_along(found: Manifest, source: SourceIdentity, base: Callable[[], SourceIdentity | None]) -> str | None:
    """Say whether an adapter's base model, or the files copied along with the model, have changed."""
    along = _hashes(found["files"])
    adapter = source_of(found)["adapter"]
    if adapter is None:
        return None if source.get("along", along) == along else "files copied along have changed"
    now = base()
    if now is None:
        return "it was made from an adapter"
    if reason := _other_source(adapter["base"], now):
        return f"of the adapter's base, {reason}"
    given = {**now.get("along", {}), **source.get("along", {})}
    changed = any(along.get(name) != digest for name, digest in given.items() if name != "config.json")
    all_known = "along" in now and "along" in source
    if changed or (all_known and along.keys() - given.keys() - _WRITTEN_BY_MERGING):
        return "files copied along have changed"
    return None


def _hashes(files: list[FileEntry]) -> dict[str, str]:
    return {file["path"]: file["sha256"] for file in files}


def _other_local_files(found: Manifest, folder: Path) -> str | None:
    """Say which file in an output folder differs from the manifest."""
    for file in listed_files(found):
        path = folder / file["path"]
        if not path.is_file():
            return f"{file['path']} is missing"
        if path.stat().st_size != file["size_bytes"] or sha256(path) != file["sha256"]:
            return f"{file['path']} differs from its manifest"
    return None


def _other_files(found: Manifest, place: Place) -> str | None:
    """Say which file in the repository differs from the manifest. Files outside of large storage are downloaded."""
    entries = {place.prefix + str(file["path"]): str(file["sha256"]) for file in listed_files(found)}
    if missing := [path for path in entries if path not in place.tree]:
        return f"{missing[0]} is missing"
    small = [path for path in entries if place.tree[path].sha256 is None]
    root = place.hub.download(place.repository, place.commit, small) if small else Path()
    for path, digest in entries.items():
        if (place.tree[path].sha256 or sha256(root / path)) != digest:
            return f"{path} differs from its manifest"
    return None
