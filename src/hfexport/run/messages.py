"""Jobs of the exporting and of the verifying process; they are checked when they are read."""

from __future__ import annotations

from typing import Any

from hfexport._internal.messages import Message
from hfexport.hub.messages import FetchedMessage
from hfexport.run.inputs import Inputs

__all__ = ["DescribingJob", "ExportSubject", "IsolatedJob", "VerifySubject"]


class ExportSubject(Message, frozen=True, tag="export"):
    """Export and validate a checkpoint.

    Attributes:
        manifest: manifest so far; see `hfexport.manifest.model.Manifest`.
    """

    manifest: dict[str, Any]


class VerifySubject(Message, frozen=True, tag="verify"):
    """Run every artifact of an export against its model.

    Attributes:
        name: name of the export for messages.
        folder: folder that holds it.
        manifest: its manifest.
    """

    name: str
    folder: str
    manifest: dict[str, Any]


class IsolatedJob(Message, frozen=True):
    """Export or verify in a process without tokens, network or access to the user's files.

    Attributes:
        subject: what to do, and to what.
        inputs: the run's inputs without the token.
        fetched: source checkpoint.
        staging: folder for unfinished files, in which alone the process may write.
        directory: working directory.
        hidden: files and folders that the process may not read.
        events: file for progress; see `hfexport.run.relay`.
    """

    subject: ExportSubject | VerifySubject
    inputs: Inputs
    fetched: FetchedMessage
    staging: str
    directory: str
    hidden: tuple[str, ...]
    events: str


class DescribingJob(Message, frozen=True):
    """Describe the export configs of a checkpoint and compute their references.

    Attributes:
        folder: folder of the checkpoint.
        inputs: the run's inputs without the token and the cache.
        staging: folder for files of the process.
        answers: folder for the outputs of the model.
        threads: number of threads.
    """

    folder: str
    inputs: Inputs
    staging: str
    answers: str
    threads: int
