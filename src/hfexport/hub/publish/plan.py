"""What a push changes: which files are added, replaced and deleted, and which must not be touched. Reads no network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Literal

from hfexport.checkpoint.local import goes_along
from hfexport.errors import PublishError
from hfexport.hub.client import HubFile
from hfexport.manifest.entries import MANIFEST_FILE
from hfexport.manifest.model import Manifest, OperationEntry

__all__ = ["CARD", "Change", "LocalFile", "Plan", "changed_paths", "holds_weights", "made_files", "make_plan"]

CARD: Final = "README.md"
ARTIFACT_FOLDERS: Final = ("onnx", "torchscript", "neuron")
"""Where artifacts lie. Nothing is ever deleted outside of them, but what an earlier export took along itself."""

_WEIGHTS: Final = re.compile(r"[^/]+\.(safetensors|bin|h5|msgpack|pt|pth|ckpt|gguf)(\.index\.json)?")


@dataclass(frozen=True)
class LocalFile:
    """A file to publish.

    Attributes:
        path: in the repository.
        local: where it lies here.
        size_bytes: of its content.
        sha256: of its content.
    """

    path: str
    local: Path
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Change:
    """One operation of a commit; `file` is what is added, or takes the place of what is there."""

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
    """All operations of one commit, in order of their paths, and what stays because it is the same already."""

    changes: tuple[Change, ...]
    unchanged: tuple[LocalFile, ...]

    def is_done(self, tree: Mapping[str, HubFile]) -> bool:
        """Whether a commit with these files is what this plan leads to."""
        return not self.undone(tree)

    def undone(self, tree: Mapping[str, HubFile]) -> list[str]:
        """Paths that are not, in a commit with these files, as this plan wants them."""
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
    """The operations that bring a repository to hold `files` and nothing of an earlier export beside them.

    Args:
        files: artifacts, what goes along, the manifest and the card.
        tree: the files of the commit that the push builds on.
        earlier: the manifest there, if there is one.
        prefix: the folder of the repository that the export lies in, with a slash at its end; empty for its root.
        place: the repository and branch, for messages.

    Raises:
        PublishError: a file that is not ours would be replaced.
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
            remedy="Publish to the repository of this very checkpoint, or to one of its own; nothing was changed.",
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
    """What a manifest lists, as it lies in the output folder: artifacts, and what went along."""
    entries = [*manifest["files"], *(file for artifact in manifest["artifacts"] for file in artifact["files"])]
    return [
        LocalFile(prefix + entry["path"], output / entry["path"], entry["size_bytes"], entry["sha256"])
        for entry in entries
    ]


def holds_weights(tree: Iterable[str], prefix: str) -> bool:
    """Whether a repository holds a checkpoint, so that its config and tokenizer are its own."""
    return any(_WEIGHTS.fullmatch(path.removeprefix(prefix)) for path in tree if path.startswith(prefix))


def changed_paths(before: Mapping[str, HubFile], after: Mapping[str, HubFile]) -> set[str]:
    """Paths at which two commits differ."""
    return {
        path
        for path in before.keys() | after.keys()
        if path not in before or path not in after or before[path].git_sha1 != after[path].git_sha1
    }


def _is_there(file: LocalFile, tree: Mapping[str, HubFile]) -> bool:
    return file.path in tree and tree[file.path].holds(file.local, file.sha256)


def _is_free(path: str, prefix: str) -> bool:
    """Whether whatever lies at `path` may be replaced: artifacts, the manifest, and the card, of which a part is ours."""
    name = path.removeprefix(prefix)
    return name in (MANIFEST_FILE, CARD) or name.split("/", 1)[0] in ARTIFACT_FOLDERS


def _listed(earlier: Manifest | None, tree: Mapping[str, HubFile], prefix: str) -> list[str]:
    """What an earlier export put there, as its manifest says; that is anybody's text, so only what may be ours counts."""
    if earlier is None:
        return []
    try:
        artifacts = [str(file["path"]) for artifact in earlier["artifacts"] for file in artifact["files"]]
        along = [str(file["path"]) for file in earlier["files"]]
    except (KeyError, TypeError):
        return []
    found = [
        path
        for path in artifacts
        if PurePosixPath(path).parts[0] in ARTIFACT_FOLDERS and ".." not in PurePosixPath(path).parts
    ]
    return found if holds_weights(tree, prefix) else [*found, *(path for path in along if goes_along(path))]
