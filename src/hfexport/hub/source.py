"""Locate a checkpoint: a local folder, or a model on the Hub at one commit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

from hfexport.checkpoint import look_over, sha256
from hfexport.checkpoint.adapter import ADAPTER_CONFIG, find_adapter
from hfexport.checkpoint.model_id import is_hub_id
from hfexport.errors import CheckpointError, InputsError
from hfexport.hub.client import Hub
from hfexport.hub.messages import FetchedMessage, HubMessage
from hfexport.hub.snapshot import HubModel, download, resolve
from hfexport.manifest.model import GivenEntry, HubEntry

__all__ = ["Fetched", "Source", "SourceIdentity", "describe_source", "identity", "locate"]


@dataclass(frozen=True)
class Source:
    """A checkpoint that was located but not read yet.

    Attributes:
        given: model as the user wrote it.
        folder: folder of a local checkpoint.
        model: repository and commit, if the checkpoint is on the Hub.
    """

    given: str
    folder: Path
    model: HubModel | None = None

    def to_dict(self) -> GivenEntry:
        """Return the model as it was named and, for the Hub, its repository and commit, as JSON values."""
        return {"model": self.given, "hub": None if self.model is None else self.model.to_dict()}

    def fetch(
        self, hub: Callable[[], Hub], note: Callable[[str], None], *, code: bool = False, variant: str = ""
    ) -> tuple[Path, Mapping[Path, str]]:
        """Download the checkpoint if needed; return its folder and the SHA-256 hashes that are already known.

        Args:
            hub: creates the client.
            note: called with messages about the download.
            code: also download Python files of the repository.
            variant: variant of the weights, see `hfexport.checkpoint.weights.weight_file_names`.
        """
        if self.model is None:
            return self.folder, {}
        snapshot = download(hub(), self.model, code=code, variant=variant, note=note)
        return snapshot.folder, snapshot.digests


class SourceIdentity(TypedDict):
    """Identity of a checkpoint: `hub` as in a manifest; for a folder also SHA-256 by file name."""

    hub: HubEntry | None
    files: NotRequired[Mapping[str, str]]
    along: NotRequired[Mapping[str, str]]


@dataclass(frozen=True)
class Fetched:
    """A checkpoint whose files are on this machine.

    Attributes:
        source: where the checkpoint came from.
        folder: folder that holds it.
        digests: SHA-256 of those files whose hash is already known.
        base: for an adapter, the checkpoint that it is merged into.
    """

    source: Source
    folder: Path
    digests: Mapping[Path, str]
    base: Fetched | None = None

    def to_message(self) -> FetchedMessage:
        """Convert to the part of a job that `from_message` reads."""
        model = self.source.model
        return FetchedMessage(
            given=self.source.given,
            located=str(self.source.folder),
            hub=None if model is None else HubMessage(**model.to_dict()),
            folder=str(self.folder),
            digests={str(path): digest for path, digest in self.digests.items()},
            base=None if self.base is None else self.base.to_message(),
        )

    @classmethod
    def from_message(cls, message: FetchedMessage) -> Fetched:
        """Create from the result of `to_message`."""
        hub = message.hub
        model = None if hub is None else HubModel(hub.repository, hub.revision, hub.commit, hub.subfolder)
        return cls(
            Source(message.given, Path(message.located), model),
            Path(message.folder),
            {Path(path): digest for path, digest in message.digests.items()},
            None if message.base is None else cls.from_message(message.base),
        )


def locate(model: str, revision: str, subfolder: str | None, hub: Callable[[], Hub]) -> Source:
    """Find the folder or Hub model that `model` names; resolve a Hub model to a commit.

    Args:
        model: a folder, or `owner/name`.
        revision: revision of a model on the Hub.
        subfolder: folder of the checkpoint in the folder or repository.
        hub: creates the client; called only for a model on the Hub.

    Raises:
        CheckpointError: there is no folder and no model on the Hub with that name.
        InputsError: a revision was given for a folder.
    """
    if not is_hub_id(model):
        if revision != "main":
            raise InputsError(
                [f"revision is {revision!r}, but model {model!r} is a folder: only the Hub has revisions"]
            )
        return Source(model, Path(model, subfolder or ""))
    try:
        found = resolve(hub(), model, revision, subfolder or "")
    except CheckpointError as error:
        raise CheckpointError(f"{error.message} (and no folder here is named {model})", remedy=error.remedy).by(
            error.failed_by
        ) from error
    return Source(model, Path(model), found)


def identity(source: Source, folder: Path) -> str:
    """Return the checkpoint's identity that artifacts record; it does not depend on the folder's path.

    Args:
        source: where the checkpoint came from.
        folder: folder that holds its config.json.
    """
    if source.model is not None:
        name = "/".join(filter(None, (source.model.repository, source.model.subfolder)))
        return f"{name}@{source.model.commit}"
    name = ADAPTER_CONFIG if (folder / ADAPTER_CONFIG).is_file() else "config.json"
    return f"{name}@sha256:{hashlib.sha256((folder / name).read_bytes()).hexdigest()}"


def describe_source(source: Source, variant: str = "") -> SourceIdentity:
    """Identify a source: by the commit on the Hub, or for a folder by the SHA-256 of every relevant file.

    Args:
        source: located source.
        variant: variant of its weights, see `look_over`.
    """
    if source.model is not None:
        return {"hub": source.model.to_dict()}
    given = find_adapter(source.folder) or look_over(source.folder, variant)
    return {
        "hub": None,
        "files": {path.name: sha256(path) for path in given.files},
        "along": {name: sha256(path) for name, path in given.along.items()},
    }
