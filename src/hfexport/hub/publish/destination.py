"""Where a push goes, as it is now; and what is made there for the push alone, and removed again if the push fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from hfexport.errors import PublishError
from hfexport.hub.client import Hub, HubFile

__all__ = ["Base", "Destination", "created", "head_of", "look"]


@dataclass(frozen=True)
class Destination:
    """Where to publish, and how.

    Attributes:
        repository: `owner/name`.
        branch: of the repository.
        create_pr: as a pull request against the branch.
        private: of a repository that has to be made.
        message: first line of the commit; empty for one that says what was exported.
        dry_run: say what would be done, and do nothing.
    """

    repository: str
    branch: str = "main"
    create_pr: bool = False
    private: bool = False
    message: str = ""
    dry_run: bool = False


@dataclass(frozen=True)
class Base:
    """The commit that a push builds on. `ref` does not exist where `commit` is empty, nor does anything below it."""

    ref: str
    commit: str
    tree: Mapping[str, HubFile]
    repository_exists: bool = True


def head_of(hub: Hub, repository: str, ref: str) -> Base:
    """What a branch or `refs/pr/N` points to now."""
    commit = hub.commit_of(repository, ref)
    return Base(ref, commit, hub.files(repository, commit))


def look(hub: Hub, to: Destination) -> Base:
    """The branch as it is now. It need not be there, nor the repository, unless a pull request is to be opened."""
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
    """The base of a commit, made if it is not there; what was made goes again if the block is left by an error.

    Only that is removed which this call has made and nobody has committed to since. The Hub has no call that makes a
    repository or a branch together with its first commit.

    Args:
        hub: to write with.
        to: the repository and the branch.
        base: of the push, as it was looked up.
        start: the commit that a new branch starts from; `None`: where `main` is.
        note: is told what was removed, and what could not be.
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
    """Have `remove` called if the stack is left by an error, of whatever kind."""

    def leave(kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            remove()

    undo.push(leave)


def _make_repository(hub: Hub, to: Destination) -> bool:
    """Make it, empty; false if somebody else has, meanwhile."""
    return _made(hub, lambda: hub.api.create_repo(to.repository, private=to.private))


def _make_branch(hub: Hub, to: Destination, start: str) -> bool:
    return _made(hub, lambda: hub.api.create_branch(to.repository, branch=to.branch, revision=start))


def _made(hub: Hub, call: Callable[[], object]) -> bool:
    """Whether `call` made what it makes; where it is there after an answer was lost, it did."""
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
        alone = len(commits) == 1 and heads == {commits[0].commit_id}  # the commit that the Hub makes with it
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
    """Remove what was made, once: whoever ends a run does not wait. Never hides the error that led here."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    try:
        if remove():
            note(f"{hub.endpoint}: {what}, made for this push, was removed again")
    except (HfHubHTTPError, httpx2.HTTPError) as error:
        note(f"{hub.endpoint}: {what}, made for this push, is still there, with nothing of it inside: {error}")
