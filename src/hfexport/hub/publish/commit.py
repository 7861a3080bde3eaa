"""Make one atomic commit: retry without committing twice, then check the files of the new commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hfexport.errors import PublishError
from hfexport.hub.client import Hub, HubFile
from hfexport.hub.publish.plan import Plan
from hfexport.hub.publish.pull_request import find_own

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    Operations = Sequence[CommitOperationAdd | CommitOperationDelete]

__all__ = ["Committed", "Moved", "Request", "commit", "operations_of", "upload"]


@dataclass(frozen=True)
class Request:
    """A commit to make, and the parent commit that it requires.

    Attributes:
        repository: `owner/name`.
        ref: branch or `refs/pr/N`.
        parent: commit that `ref` must point to, or that a new pull request starts from.
        plan: planned changes.
        operations: the plan's operations; see `operations_of`.
        message: first line of the commit message.
        description: rest of the commit message, or the description of the pull request.
        pull_request: open a pull request against `ref`.
        marker: text that identifies our pull request for this source.
    """

    repository: str
    ref: str
    parent: str
    plan: Plan
    operations: Operations
    message: str
    description: str
    pull_request: bool = False
    marker: str = ""


@dataclass(frozen=True)
class Committed:
    """A commit that was made: its id, its URL and the number of the pull request that it opened (0 if none)."""

    oid: str
    url: str
    pull_request: int = 0


class Moved(Exception):
    """The branch no longer points to the parent commit."""


def operations_of(plan: Plan) -> Operations:
    """Convert a plan to the client's operations. The client records uploads in them, so build them once for a push."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    return [
        CommitOperationDelete(change.path, is_folder=False)
        if change.file is None
        else CommitOperationAdd(change.path, str(change.file.local))
        for change in plan.changes
    ]


def upload(hub: Hub, repository: str, revision: str, operations: Operations) -> None:
    """Upload the large files of a commit before making it; no branch shows them yet.

    Args:
        hub: client to write with.
        repository: `owner/name`.
        revision: existing revision whose .gitattributes decides which files are large.
        operations: operations of the commit.
    """
    from huggingface_hub import CommitOperationAdd

    additions = [one for one in operations if isinstance(one, CommitOperationAdd)]
    with hub.explained(repository, revision):
        hub.retried(lambda: hub.api.preupload_lfs_files(repository, additions, revision=revision, free_memory=False))


def commit(hub: Hub, request: Request) -> Committed:
    """Make the commit and check that the repository then holds the planned files.

    If the answer to a call is lost, the branch is checked for the commit before the call is repeated.

    Raises:
        Moved: the branch has other commits, and none of them is this one.
        PublishError: the Hub refuses the commit, or the commit lacks files.
    """
    attempts = 0

    def attempt() -> Committed:
        nonlocal attempts
        attempts += 1
        if attempts > 1 and (found := _already_there(hub, request)):
            return found
        return _send(hub, request)

    try:
        with hub.explained(request.repository, request.ref):
            made = hub.retried(attempt)
    except Moved:
        # The call before this one may have succeeded although its answer was lost.
        landed = _already_there(hub, request) if attempts > 1 else None
        if landed is None:
            raise
        made = landed
    undone = request.plan.undone(hub.files(request.repository, made.oid))
    if undone:
        raise PublishError(
            f"{request.repository}: commit {made.oid[:12]} lacks {', '.join(undone[:5])}",
            remedy="Look at the repository's .gitignore: the Hub leaves out what it names.",
        )
    return made


def _send(hub: Hub, request: Request) -> Committed:
    from huggingface_hub.errors import HfHubHTTPError

    try:
        info = hub.api.create_commit(
            request.repository,
            request.operations,
            commit_message=request.message,
            commit_description=request.description,
            revision=request.ref,
            parent_commit=request.parent,
            create_pr=request.pull_request,
        )
    except HfHubHTTPError as error:
        if error.response.status_code == 412:
            raise Moved from error
        raise
    except ValueError as error:  # the Hub's own check of the card's metadata
        raise PublishError(
            f"{request.repository}: {' '.join(str(error).split())}", remedy="Correct the metadata in README.md."
        ) from error
    return Committed(info.oid, info.commit_url, info.pr_num or 0)


def _already_there(hub: Hub, request: Request) -> Committed | None:
    """Return the commit or pull request if an earlier call already made it."""
    if request.pull_request:
        number = find_own(hub, request.repository, request.ref, request.marker)
        if number is None:
            return None
        oid = hub.commit_of(request.repository, f"refs/pr/{number}")
        tree: Mapping[str, HubFile] = hub.files(request.repository, oid)
        return Committed(oid, _url(hub, request, oid), number) if request.plan.is_done(tree) else None
    head = hub.commit_of(request.repository, request.ref)
    if head == request.parent or not request.plan.is_done(hub.files(request.repository, head)):
        return None
    return Committed(head, _url(hub, request, head))


def _url(hub: Hub, request: Request, oid: str) -> str:
    return f"{hub.endpoint}/{request.repository}/commit/{oid}"
