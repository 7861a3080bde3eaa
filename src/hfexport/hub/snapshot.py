"""Download a checkpoint from the Hub: resolve the revision to a commit once, then fetch the files that an export needs.

Every file is checked against its hash in the commit before it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from hfexport._internal.sizes import size_text
from hfexport.checkpoint.json_file import read_json
from hfexport.checkpoint.left_behind import left_behind
from hfexport.checkpoint.local import ALONG, goes_along, sha256
from hfexport.checkpoint.sentence_folder import MODULES_FILE, read_modules, transformer_place
from hfexport.checkpoint.weights import refuse_missing, variant_of, weight_file_names
from hfexport.errors import CheckpointError
from hfexport.hub.client import Hub, HubFile
from hfexport.hub.resumed import finish_downloads
from hfexport.manifest.model import HubEntry

__all__ = ["HubModel", "Snapshot", "download", "needed_files", "resolve", "weights_bytes"]

WEIGHT_SUFFIXES: Final = (".safetensors", ".bin", ".h5")

ADAPTERS: Final = ("adapter_model.safetensors", "adapter_model.bin")

BESIDE: Final = (
    *("adapter_config.json", "special_tokens_map.json", "video_preprocessor_config.json"),
    *("normalizer.json", "preprocessor.json"),
)
"""Small files that are needed to read a checkpoint, in addition to those copied along with an export."""


@dataclass(frozen=True)
class HubModel:
    """A checkpoint on the Hub, at one commit.

    Attributes:
        repository: `owner/name`.
        revision: requested branch, tag, commit or `refs/pr/N`.
        commit: commit id that the revision resolved to; all later requests use it.
        subfolder: folder of the checkpoint in the repository; empty for its root.
    """

    repository: str
    revision: str
    commit: str
    subfolder: str

    def to_dict(self) -> HubEntry:
        return {
            "repository": self.repository,
            "revision": self.revision,
            "commit": self.commit,
            "subfolder": self.subfolder,
        }


@dataclass(frozen=True)
class Snapshot:
    """A downloaded checkpoint.

    Attributes:
        folder: folder of the checkpoint in the client's cache.
        digests: SHA-256 of each file, by its path in that folder.
    """

    folder: Path
    digests: Mapping[Path, str]


def resolve(hub: Hub, repository: str, revision: str, subfolder: str = "") -> HubModel:
    """Look up the commit that `revision` points to now.

    Raises:
        CheckpointError: the revision does not exist or is not accessible; the remedy says which.
    """
    return HubModel(repository, revision, hub.commit_of(repository, revision), subfolder.strip("/"))


def download(
    hub: Hub, model: HubModel, *, code: bool, variant: str = "", note: Callable[[str], None] = lambda _: None
) -> Snapshot:
    """Download the files that an export needs into the client's cache, and check every file against its hash.

    Args:
        hub: client to read with.
        model: model and commit.
        code: also download the Python files beside the config, which will be run.
        variant: variant of the weights, see `hfexport.checkpoint.weights.weight_file_names`.
        note: called with messages about the download.

    Raises:
        CheckpointError: the checkpoint has no config or no weights, or a file differs from its hash in the commit.
    """
    files = hub.files(model.repository, model.commit)
    prefix = f"{model.subfolder}/" if model.subfolder else ""
    here = {path.removeprefix(prefix): file for path, file in files.items() if path.startswith(prefix)}
    if not here:
        folders = sorted({path.split("/", 1)[0] for path in files if "/" in path})
        raise CheckpointError(
            f"{model.repository}: has no folder {model.subfolder!r} at {model.commit[:12]}",
            remedy=f"Its folders: {', '.join(folders[:10])}."
            if folders
            else "Leave subfolder empty: it has no folders.",
        )

    def fetch(paths: Iterable[str]) -> Snapshot:
        return _fetch(hub, model, {prefix + path: here[path] for path in paths}, prefix, note)

    paths = needed_files(here, lambda path: fetch([path]).folder / path, variant)
    if code and (modules := sorted(path for path in here if path.endswith(".py") and "/" not in path)):
        paths = (*paths, *modules)
        note(f"Code of {model.repository} at commit {model.commit} will be run: {', '.join(modules)}")
    if left := left_behind(here, paths):
        note(f"Not in the export: {', '.join(left)}")
    size_bytes = sum(here[path].size_bytes for path in paths)
    note(f"{model.repository} at {model.commit[:12]}: {len(paths)} files, {size_text(size_bytes)}")
    return fetch(paths)


def weights_bytes(hub: Hub, model: HubModel, variant: str = "") -> int:
    """Return the size of the weight files that an export would download, in bytes.

    Raises:
        CheckpointError: as for `download`.
    """
    prefix = f"{model.subfolder}/" if model.subfolder else ""
    files = hub.files(model.repository, model.commit)
    here = {path.removeprefix(prefix): file for path, file in files.items() if path.startswith(prefix)}

    def fetch(path: str) -> Path:
        return hub.download(model.repository, model.commit, [prefix + path]) / prefix / path

    paths = needed_files(here, fetch, variant)
    return sum(here[path].size_bytes for path in paths if path.endswith(WEIGHT_SUFFIXES))


def needed_files(names: Iterable[str], fetch: Callable[[str], Path], variant: str = "") -> tuple[str, ...]:
    """Choose the files of a checkpoint that an export reads, without second copies of weights or existing artifacts.

    Args:
        names: names of all files, relative to the checkpoint's folder.
        fetch: downloads one file; called only for modules.json and an index of shards.
        variant: variant of the weights, see `hfexport.checkpoint.weights.weight_file_names`.

    Raises:
        CheckpointError: an index names a missing shard, or only other variants of the weights are present.
    """
    present = set(names)
    small = [name for name in (*ALONG, *BESIDE) if name in present]
    if MODULES_FILE not in present:
        return (*small, *_needed_weights(present, fetch, variant))
    place = transformer_place(present.__contains__, lambda: read_modules(fetch(MODULES_FILE)))
    modules = sorted(
        name for name in present if "/" in name and goes_along(name) and not (place and name.startswith(f"{place}/"))
    )
    if not place:
        return tuple(dict.fromkeys([*small, *modules, *_needed_weights(present, fetch, variant)]))
    below = {name.removeprefix(f"{place}/") for name in present if name.startswith(f"{place}/")}
    own = [name for name in (*ALONG, *BESIDE) if name in below]
    own += _needed_weights(below, lambda name: fetch(f"{place}/{name}"), variant)
    return tuple(dict.fromkeys([*small, *modules, *(f"{place}/{name}" for name in own)]))


def _needed_weights(present: Collection[str], fetch: Callable[[str], Path], variant: str) -> tuple[str, ...]:
    """List the weight files among `present`, an index before its shards; empty if there are none."""
    order = weight_file_names(variant)
    if "adapter_config.json" in present:
        order = (*ADAPTERS, *order)
    weights = next((name for name in order if name in present), None)
    if weights is None:
        if variant or any(variant_of(name) for name in present):
            raise refuse_missing("the repository", (name for name in present if "/" not in name), variant)
        return ()
    if not weights.endswith(".json"):
        return (weights,)
    weight_map = read_json(fetch(weights)).get("weight_map")
    shards = sorted(set(map(str, weight_map.values()))) if isinstance(weight_map, dict) else []
    if missing := [name for name in shards if name not in present]:
        raise CheckpointError(
            f"{weights}: names {missing[0]!r}, which is not in the repository", remedy="Upload the missing shard."
        )
    return (weights, *shards)


def _fetch(
    hub: Hub, model: HubModel, files: Mapping[str, HubFile], prefix: str, note: Callable[[str], None]
) -> Snapshot:
    """Download `files`; a file that does not match its hash is downloaded once more."""
    if not hub.offline:
        finish_downloads(hub, model.repository, model.commit, files.values(), note)
    root = hub.download(model.repository, model.commit, files)
    digests: dict[Path, str] = {}
    for path, file in files.items():
        digest = _checked(root / path, file)
        if digest is None:
            hub.download(model.repository, model.commit, [path], again=True)
            digest = _checked(root / path, file)
        if digest is None:
            raise CheckpointError(
                f"{model.repository}: {path} was downloaded twice, and differs from the file in commit {model.commit[:12]}",
                remedy="Try again. If the error stays, the copy on the Hub or in a proxy is damaged.",
            )
        digests[root / path] = digest
    return Snapshot(root / PurePosixPath(prefix), digests)


def _checked(path: Path, file: HubFile) -> str | None:
    """Return the SHA-256 of a downloaded file; `None` if it differs from the file in the commit."""
    if not path.is_file():
        return None
    digest = sha256(path)
    return digest if file.holds(path, digest) else None
