"""Jobs and answers of the exporting, verifying and describing processes; they are checked when they are read."""

from __future__ import annotations

from typing import Literal

from hfexport._internal.messages import Message
from hfexport.export_config.described import ConfigDescription
from hfexport.hub.messages import FetchedMessage
from hfexport.manifest.model import Dtype, Manifest
from hfexport.run.inputs import Inputs
from hfexport.validation.messages import ReferenceJob

__all__ = ["DescribedGraph", "DescribingJob", "Description", "ExportSubject", "IsolatedJob", "VerifySubject"]


class ExportSubject(Message, frozen=True, tag="export"):
    """Export and validate a checkpoint.

    Attributes:
        manifest: manifest so far.
    """

    manifest: Manifest


class VerifySubject(Message, frozen=True, tag="verify"):
    """Run every artifact of an export against its model.

    Attributes:
        name: name of the export for messages.
        folder: folder that holds it.
        manifest: its manifest.
    """

    name: str
    folder: str
    manifest: Manifest


class IsolatedJob(Message, frozen=True):
    """Export or verify in a process without tokens, network or access to the user's files.

    Attributes:
        subject: the export to make or to verify.
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


class DescribedGraph(Message, frozen=True):
    """A graph that a checkpoint is exported as.

    Attributes:
        format: name of the format.
        key: key that its template must have.
        config: its export config.
    """

    format: str
    key: str
    config: ConfigDescription


class Description(Message, frozen=True):
    """Description of a checkpoint, which a `DescribingJob` writes before it runs the model.

    Attributes:
        notes: notes and warnings for the user, in order.
        dtype: dtype of the export.
        unused: names of the checkpoint's tensors that the model does not use.
        reference: the references that it computes next.
        graphs: graphs of all formats, in the order in which they are exported.
    """

    notes: tuple[tuple[Literal["note", "warn"], str], ...]
    dtype: Dtype
    unused: tuple[str, ...]
    reference: ReferenceJob
    graphs: tuple[DescribedGraph, ...]
