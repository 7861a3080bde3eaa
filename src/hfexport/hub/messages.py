"""Parts of jobs that say where a checkpoint came from."""

from __future__ import annotations

from hfexport._internal.messages import Message

__all__ = ["FetchedMessage", "HubMessage"]


class HubMessage(Message, frozen=True):
    """Values of a `HubModel`."""

    repository: str
    revision: str
    commit: str
    subfolder: str


class FetchedMessage(Message, frozen=True):
    """Values of a `Fetched`.

    Attributes:
        given: the input that named the checkpoint.
        located: folder of the source.
        hub: model on the Hub; `None` for a folder.
        folder: folder that holds the checkpoint.
        digests: SHA-256 of those files whose hash is known, by path.
        base: for an adapter, the checkpoint that it is merged into.
    """

    given: str
    located: str
    hub: HubMessage | None
    folder: str
    digests: dict[str, str]
    base: FetchedMessage | None
