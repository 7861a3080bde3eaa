"""Look up the destination of a push; create a missing repository or branch, and remove it again if the push fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from hfexport.errors import PublishError
from hfexport.hub.client import Hub, HubFile

__all__ = ["Base", "Destination", "created", "head_of", "look"]


@dataclass(frozen=True)
class Destination:
    """Where and how to publish.

    Attributes:
        repository: `owner/name`.
        branch: branch of the repository.
        create_pr: open a pull request against the branch.
        private: make a new repository private.
        message: first line of the commit; if empty, a default names the exported formats.
        dry_run: report the changes without making them.
    """

    repository: str
    branch: str = "main"
    create_pr: bool = False
    private: bool = False
    message: str = ""
    dry_run: bool = False


@dataclass(frozen=True)
class Base:
    """The commit that a push builds on. With an empty `commit`, the ref does not exist yet."""

    ref: str
    commit: str
    tree: Mapping[str, HubFile]
    repository_exists: bool = True


def head_of(hub: Hub, repository: str, ref: str) -> Base:
    """Look up the commit that a branch or `refs/pr/N` points to now."""
    commit = hub.commit_of(repository, ref)
    return Base(ref, commit, hub.files(repository, commit))


def look(hub: Hub, to: Destination) -> Base:
    """Look up the branch. The branch and repository may be missing, unless a pull request is to be opened."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        return head_of(hub, to.repository, to.branch)
    except PublishError as error:
        if isinstance(error.__cause__, RevisionNotFoundError) and not to.create_pr:
            return Base(to.branch, "", {})
        if isinstance(error.__cause__, RepositoryNotFoundError) and hub.token and not to.create_pr:
            return Base(to.branch, "", {}, repository_exists=False)
        raise


@contextmanager
def created(hub: Hub, to: Destination, base: Base, start: str | None, note: Callable[[str], None]) -> Iterator[Base]:
    """Create a missing repository and branch, and remove them again if the block raises.

    Only what this call created is removed, and only if it has no later commit. The Hub has no call that
    creates a repository or a branch together with its first commit.

    Args:
        hub: client to write with.
        to: repository and branch.
        base: base of the push, as it was looked up.
        start: commit that a new branch starts from; `None` for the head of `main`.
        note: called with messages about what was removed and what could not be removed.
    """
    if base.commit:
        yield base
        return
    with ExitStack() as undo:
        with hub.explained(to.repository, to.branch):
            if not base.repository_exists and _make_repository(hub, to):
                _unless_done(undo, lambda: _remove_repository(hub, to, note))
            if to.branch != "main":
                first = hub.commit_of(to.repository, start or "main")
                if _make_branch(hub, to, first):
                    _unless_done(undo, lambda: _remove_branch(hub, to, first, note))
        yield head_of(hub, to.repository, to.branch)


def _unless_done(undo: ExitStack, remove: Callable[[], None]) -> None:
    """Register `remove` to run if the stack is left by any exception."""

    def leave(kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            remove()

    undo.push(leave)


def _make_repository(hub: Hub, to: Destination) -> bool:
    """Create an empty repository; return false if someone else has created it meanwhile."""
    return _made(hub, lambda: hub.api.create_repo(to.repository, private=to.private))


def _make_branch(hub: Hub, to: Destination, start: str) -> bool:
    return _made(hub, lambda: hub.api.create_branch(to.repository, branch=to.branch, revision=start))


def _made(hub: Hub, call: Callable[[], object]) -> bool:
    """Return whether `call` created its object; if a retry finds it present, the earlier call created it."""
    from huggingface_hub.errors import HfHubHTTPError

    attempts = 0

    def attempt() -> None:
        nonlocal attempts
        attempts += 1
        call()

    try:
        hub.retried(attempt)
    except HfHubHTTPError as error:
        if error.response.status_code == 409:
            return attempts > 1
        raise
    return True


def _remove_repository(hub: Hub, to: Destination, note: Callable[[str], None]) -> None:
    def remove() -> bool:
        commits = hub.api.list_repo_commits(to.repository)
        heads = {branch.target_commit for branch in hub.api.list_repo_refs(to.repository).branches}
        alone = len(commits) == 1 and heads == {commits[0].commit_id}  # the initial commit that the Hub makes
        if alone:
            hub.api.delete_repo(to.repository)
        return alone

    _removed(hub, remove, f"the repository {to.repository}", note)


def _remove_branch(hub: Hub, to: Destination, start: str, note: Callable[[str], None]) -> None:
    def remove() -> bool:
        alone = hub.api.model_info(to.repository, revision=to.branch).sha == start
        if alone:
            hub.api.delete_branch(to.repository, branch=to.branch)
        return alone

    _removed(hub, remove, f"the branch {to.branch} of {to.repository}", note)


def _removed(hub: Hub, remove: Callable[[], bool], what: str, note: Callable[[str], None]) -> None:
    """Remove a created object, without retries so that the run ends soon. Errors are reported, not raised."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    try:
        if remove():
            note(f"{hub.endpoint}: {what}, created for this push, was removed again")
    except (HfHubHTTPError, httpx2.HTTPError) as error:
        note(f"{hub.endpoint}: {what}, created for this push, still exists and is empty: {error}")
