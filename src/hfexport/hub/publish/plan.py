"""Plan a push: which files to add, replace and delete, and which must not change. Uses no network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Literal

from hfexport.backends.formats import FORMATS
from hfexport.backends.onnx.targets.genai import CONFIG_FILE
from hfexport.backends.onnx.targets.genai_whisper import AUDIO_FILE
from hfexport.checkpoint.local import goes_along
from hfexport.errors import PublishError
from hfexport.hub.client import HubFile
from hfexport.manifest.entries import MANIFEST_FILE, listed_files
from hfexport.manifest.model import Manifest, OperationEntry

__all__ = ["CARD", "Change", "LocalFile", "Plan", "changed_paths", "holds_weights", "made_files", "make_plan"]

CARD: Final = "README.md"
ARTIFACT_FOLDERS: Final = tuple(FORMATS)
"""Folders of artifacts. Outside of them, only files that an earlier export copied along are ever deleted."""

_WEIGHTS: Final = re.compile(r"[^/]+\.(safetensors|bin|h5|msgpack|pt|pth|ckpt|gguf)(\.index\.json)?")


@dataclass(frozen=True)
class LocalFile:
    """A file to publish.

    Attributes:
        path: path in the repository.
        local: path on this machine.
        size_bytes: size of the content.
        sha256: hash of the content.
    """

    path: str
    local: Path
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Change:
    """One operation of a commit; `file` is the file to add or to replace the existing one with."""

    operation: Literal["add", "replace", "delete"]
    path: str
    file: LocalFile | None = None

    def to_dict(self) -> OperationEntry:
        described: OperationEntry = {"operation": self.operation, "path": self.path}
        if self.file is not None:
            described |= {"size_bytes": self.file.size_bytes, "sha256": self.file.sha256}
        return described


@dataclass(frozen=True)
class Plan:
    """All operations of one commit in order of their paths, and the files that are already up to date."""

    changes: tuple[Change, ...]
    unchanged: tuple[LocalFile, ...]

    def is_done(self, tree: Mapping[str, HubFile]) -> bool:
        """Return whether a commit with these files has everything that the plan asks for."""
        return not self.undone(tree)

    def undone(self, tree: Mapping[str, HubFile]) -> list[str]:
        """List the paths whose state in a commit with these files differs from the plan."""
        wrong = [change.path for change in self.changes if change.file is None and change.path in tree]
        wanted = [*(change.file for change in self.changes if change.file is not None), *self.unchanged]
        return wrong + [file.path for file in wanted if not _is_there(file, tree)]


def make_plan(
    files: Iterable[LocalFile],
    tree: Mapping[str, HubFile],
    *,
    earlier: Manifest | None,
    prefix: str,
    place: str,
) -> Plan:
    """Plan the operations after which a repository holds `files` and nothing else of an earlier export.

    Args:
        files: artifacts, files copied along, the manifest and the card.
        tree: files of the commit that the push builds on.
        earlier: manifest in that commit, if there is one.
        prefix: folder of the export in the repository, ending with a slash; empty for the root.
        place: repository and branch, for messages.

    Raises:
        PublishError: a file that hfexport did not write would be replaced.
    """
    wanted = {file.path: file for file in files}
    ours = {prefix + path for path in _listed(earlier, tree, prefix)}
    conflicts = [
        file.path
        for file in wanted.values()
        if file.path in tree and not _is_there(file, tree) and file.path not in ours and not _is_free(file.path, prefix)
    ]
    if conflicts:
        raise PublishError(
            f"{place}: holds another {', '.join(sorted(conflicts)[:5])} than the checkpoint that was exported",
            remedy="Publish to this checkpoint's own repository, or to a new one; nothing was changed.",
        )
    changes = [
        Change("replace" if file.path in tree else "add", file.path, file)
        for file in wanted.values()
        if not _is_there(file, tree)
    ]
    changes += [Change("delete", path) for path in ours if path in tree and path not in wanted]
    unchanged = [file for file in wanted.values() if _is_there(file, tree)]
    return Plan(
        tuple(sorted(changes, key=lambda change: change.path)), tuple(sorted(unchanged, key=lambda file: file.path))
    )


def made_files(manifest: Manifest, output: Path, prefix: str) -> list[LocalFile]:
    """List the files that a manifest names in the output folder: artifacts, and files copied along."""
    return [
        LocalFile(prefix + entry["path"], output / entry["path"], entry["size_bytes"], entry["sha256"])
        for entry in listed_files(manifest)
    ]


def holds_weights(tree: Iterable[str], prefix: str) -> bool:
    """Return whether a repository holds a checkpoint, whose config and tokenizer then must not be touched."""
    return any(_WEIGHTS.fullmatch(path.removeprefix(prefix)) for path in tree if path.startswith(prefix))


def changed_paths(before: Mapping[str, HubFile], after: Mapping[str, HubFile]) -> set[str]:
    """Return the paths at which two commits differ."""
    return {
        path
        for path in before.keys() | after.keys()
        if path not in before or path not in after or before[path].git_sha1 != after[path].git_sha1
    }


def _is_there(file: LocalFile, tree: Mapping[str, HubFile]) -> bool:
    return file.path in tree and tree[file.path].holds(file.local, file.sha256)


def _is_free(path: str, prefix: str) -> bool:
    """Return whether any file at `path` may be replaced: artifacts, files of a target, the manifest and the card."""
    name = path.removeprefix(prefix)
    return name in (MANIFEST_FILE, CARD, CONFIG_FILE, AUDIO_FILE) or name.split("/", 1)[0] in ARTIFACT_FOLDERS


def _listed(earlier: Manifest | None, tree: Mapping[str, HubFile], prefix: str) -> list[str]:
    """List the files of an earlier export. Its manifest is untrusted text, so paths that cannot be ours are ignored."""
    if earlier is None:
        return []
    try:
        artifacts = [
            str(file["path"])
            for made in (*earlier["artifacts"], *earlier.get("variants", []))
            for file in made["files"]
        ]
        along = [str(file["path"]) for file in earlier["files"]]
    except (KeyError, TypeError):
        return []
    found = [
        path
        for path in artifacts
        if PurePosixPath(path).parts[0] in ARTIFACT_FOLDERS and ".." not in PurePosixPath(path).parts
    ]
    return found if holds_weights(tree, prefix) else [*found, *(path for path in along if goes_along(path))]
