"""Where a checkpoint comes from: a folder here, or a model on the Hub at one commit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfexport.checkpoint.adapter import ADAPTER_CONFIG
from hfexport.checkpoint.model_id import is_hub_id
from hfexport.errors import CheckpointError, InputsError
from hfexport.hub.client import Hub
from hfexport.hub.snapshot import HubModel, download, resolve
from hfexport.manifest.model import GivenEntry

__all__ = ["Fetched", "Source", "identity", "locate"]


@dataclass(frozen=True)
class Source:
    """A checkpoint that was located, not yet read.

    Attributes:
        given: as the user wrote it.
        folder: where it lies, if it is here.
        model: what it is on the Hub, if it is there.
    """

    given: str
    folder: Path
    model: HubModel | None = None

    def to_dict(self) -> GivenEntry:
        """The model as it was named and, on the Hub, its repository and commit, as JSON values."""
        return {"model": self.given, "hub": None if self.model is None else self.model.to_dict()}

    def fetch(
        self, hub: Callable[[], Hub], note: Callable[[str], None], *, code: bool = False, variant: str = ""
    ) -> tuple[Path, Mapping[Path, str]]:
        """The folder that holds the checkpoint, and the SHA-256 of its files as far as they are known by now.

        Args:
            hub: makes the client.
            note: is told what is downloaded.
            code: also of Python files that the repository carries.
            variant: of the weights, see `hfexport.checkpoint.weights.weight_file_names`.
        """
        if self.model is None:
            return self.folder, {}
        snapshot = download(hub(), self.model, code=code, variant=variant, note=note)
        return snapshot.folder, snapshot.digests


@dataclass(frozen=True)
class Fetched:
    """A checkpoint whose files are here.

    Attributes:
        source: where it came from.
        folder: that holds it.
        digests: SHA-256 of its files, as far as they are known by now.
        base: of an adapter, the checkpoint that it is merged into.
    """

    source: Source
    folder: Path
    digests: Mapping[Path, str]
    base: Fetched | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        model = self.source.model
        return {
            "given": self.source.given,
            "located": str(self.source.folder),
            "hub": None if model is None else model.to_dict(),
            "folder": str(self.folder),
            "digests": {str(path): digest for path, digest in self.digests.items()},
            "base": None if self.base is None else self.base.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Fetched:
        """From what `to_dict` gave."""
        model = None if values["hub"] is None else HubModel(**values["hub"])
        return cls(
            Source(values["given"], Path(values["located"]), model),
            Path(values["folder"]),
            {Path(path): digest for path, digest in values["digests"].items()},
            None if values["base"] is None else cls.from_dict(values["base"]),
        )


def locate(model: str, revision: str, subfolder: str | None, hub: Callable[[], Hub]) -> Source:
    """Find out what `model` names; of a model on the Hub, look its commit up.

    Args:
        model: a folder, or `owner/name`.
        revision: of a model on the Hub.
        subfolder: of the folder or the repository, where the checkpoint lies.
        hub: makes the client, only if the model is there.

    Raises:
        CheckpointError: neither a folder nor a model on the Hub has that name.
        InputsError: a revision of a folder is asked for.
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
        raise CheckpointError(f"{error.message} (and no folder here is named {model})", remedy=error.remedy) from error
    return Source(model, Path(model), found)


def identity(source: Source, folder: Path) -> str:
    """What artifacts say that they were made from: the same for the same checkpoint, wherever it lies.

    Args:
        source: of the checkpoint.
        folder: that holds its config.json.
    """
    if source.model is not None:
        name = "/".join(filter(None, (source.model.repository, source.model.subfolder)))
        return f"{name}@{source.model.commit}"
    name = ADAPTER_CONFIG if (folder / ADAPTER_CONFIG).is_file() else "config.json"
    return f"{name}@sha256:{hashlib.sha256((folder / name).read_bytes()).hexdigest()}"
