"""Repositories as the Hub keeps them: commits, branches, pull requests, and files as git blobs or large files."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["Comment", "Commit", "Entry", "Publisher", "PullRequest", "Rejected", "Repository", "User", "git_hash"]

LARGE_FILES: Final = (
    "*.bin",
    "*.h5",
    "*.model",
    "*.msgpack",
    "*.onnx",
    "*.pt",
    "*.pth",
    "*.safetensors",
    "*.onnx_data",
)
"""What a new repository's .gitattributes hands to large file storage."""
LARGE_FROM_BYTES: Final = 10_000_000


class Rejected(Exception):
    """An answer other than success.

    Args:
        status: HTTP status code.
        message: for `error` in the JSON body.
        code: for the header `X-Error-Code`, which the client turns into an exception of its own.
        body: the whole JSON body, instead of `{"error": message}`.
    """

    def __init__(self, status: int, message: str, code: str = "", body: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.body = body


def git_hash(content: bytes) -> str:
    """The id that git gives to a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class User:
    """Who a token stands for, and the repositories it may change; `None`: all that are its own."""

    name: str
    writes: frozenset[str] | None = None

    def may_write(self, repository: str) -> bool:
        return repository.startswith(f"{self.name}/") if self.writes is None else repository in self.writes


@dataclass
class Publisher:
    """A trusted publisher: workflows of `workflow_repository` may write to `repository`."""

    workflow_repository: str
    repository: str


@dataclass(frozen=True)
class Entry:
    """A file of a commit. `oid` is git's hash: of the content, or of the pointer if it is a large file."""

    size: int
    sha256: str
    oid: str
    large: bool
    xet_hash: str | None = None

    @classmethod
    def of(cls, size: int, sha256: str, content: bytes | None, xet_hash: str | None = None) -> Entry:
        """A large file where there is no `content`."""
        if content is not None:
            return cls(size, sha256, git_hash(content), large=False)
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
        return cls(size, sha256, git_hash(pointer.encode()), large=True, xet_hash=xet_hash)


@dataclass(frozen=True)
class Commit:
    """A commit with its whole tree."""

    sha: str
    parent: str | None
    title: str
    description: str
    tree: Mapping[str, Entry]


@dataclass
class Comment:
    id: str
    author: str
    content: str
    edited: bool = False


@dataclass
class PullRequest:
    """A pull request with its description as the first comment."""

    number: int
    title: str
    author: str
    base: str
    comments: list[Comment]
    status: str = "open"

    @property
    def ref(self) -> str:
        return f"refs/pr/{self.number}"


@dataclass
class Repository:
    """One model repository; `lock` is held while it is read or changed.

    Attributes:
        name: `owner/name`.
        private: only its readers see it.
        gated: everybody sees that it is there, only its readers get its files.
        readers: names of users beside the owner who may read.
        refs: by branch, tag or `refs/pr/N`: a commit.
        ignored: patterns of its .gitignore, which the Hub heeds too.
    """

    name: str
    private: bool = False
    gated: bool = False
    readers: set[str] = field(default_factory=set)
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    tags: set[str] = field(default_factory=set)
    pull_requests: list[PullRequest] = field(default_factory=list)
    ignored: tuple[str, ...] = ()
    lock: threading.RLock = field(default_factory=threading.RLock)

    def resolve(self, revision: str) -> Commit:
        """The commit that a branch, tag, pull request or commit id names."""
        with self.lock:
            sha = self.refs.get(revision, revision)
            if sha not in self.commits:
                raise Rejected(404, f"Invalid rev id: {revision}", "RevisionNotFound")
            return self.commits[sha]

    def head(self, ref: str = "main") -> str:
        return self.refs[ref]

    def files(self, revision: str = "main") -> dict[str, str]:
        """SHA-256 by path."""
        return {path: entry.sha256 for path, entry in sorted(self.resolve(revision).tree.items())}

    def upload_mode(self, path: str, size: int) -> str:
        large = size > LARGE_FROM_BYTES or any(fnmatch.fnmatch(path.rsplit("/", 1)[-1], name) for name in LARGE_FILES)
        return "lfs" if large and size else "regular"

    def is_ignored(self, path: str) -> bool:
        return any(fnmatch.fnmatch(path, pattern) for pattern in self.ignored)

    def commit(
        self,
        ref: str,
        changes: Mapping[str, Entry | None],
        *,
        title: str,
        description: str = "",
        parent: str | None = None,
        author: str = "owner",
        pull_request: bool = False,
    ) -> tuple[Commit, PullRequest | None]:
        """Make a commit in one step.

        Args:
            ref: a branch, or `refs/pr/N`.
            changes: the new entry by path; `None` deletes, a path ending in `/` with all below it.
            title: the first line of its message.
            description: the rest, and the description of a pull request.
            parent: what `ref` must point to, or what a pull request starts from.
            author: who makes it.
            pull_request: open a pull request against `ref` instead of moving it.
        """
        with self.lock:
            if ref not in self.refs or ref in self.tags:
                raise Rejected(404, f"Invalid rev id: {ref}", "RevisionNotFound")
            head = self.refs[ref]
            if parent is not None and not pull_request and not head.startswith(parent):
                raise Rejected(412, "A commit has happened since. Please refresh and try again.")
            base = self.commits[self.resolve(parent).sha if parent is not None and pull_request else head]
            made = self._make(base, changes, title, description)
            self.commits[made.sha] = made
            if not pull_request:
                self.refs[ref] = made.sha
                return made, None
            number = len(self.pull_requests) + 1
            opened = PullRequest(number, title, author, ref, [Comment(f"{number:024x}", author, description)])
            self.pull_requests.append(opened)
            self.refs[opened.ref] = made.sha
            return made, opened

    def _make(self, base: Commit, changes: Mapping[str, Entry | None], title: str, description: str) -> Commit:
        tree = dict(base.tree)
        for path, entry in changes.items():
            if entry is not None:
                tree[path] = entry
                continue
            gone = [name for name in tree if name == path or (path.endswith("/") and name.startswith(path))]
            if not gone:
                raise Rejected(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
            for name in gone:
                del tree[name]
        return make_commit(base.sha, title, description, tree, count=len(self.commits))

    def start(self, tree: Mapping[str, Entry]) -> None:
        """The first commit of branch `main`."""
        with self.lock:
            first = make_commit(None, "initial commit", self.name, tree, count=0)
            self.commits[first.sha] = first
            self.refs["main"] = first.sha

    def pull_request(self, number: int) -> PullRequest:
        with self.lock:
            if not 1 <= number <= len(self.pull_requests):
                raise Rejected(404, "Discussion not found")
            return self.pull_requests[number - 1]

    def merge(self, number: int) -> None:
        """Merge a pull request as the website does where nothing conflicts: its tree becomes the branch's."""
        with self.lock:
            request = self.pull_request(number)
            source = self.resolve(request.ref)
            made = make_commit(self.refs[request.base], f"Merge #{number}", "", source.tree, count=len(self.commits))
            self.commits[made.sha] = made
            self.refs[request.base] = made.sha
            request.status = "merged"

    def history(self, revision: str = "main") -> list[Commit]:
        """From the newest to the first."""
        found: list[Commit] = []
        sha: str | None = self.resolve(revision).sha
        while sha is not None:
            found.append(self.commits[sha])
            sha = self.commits[sha].parent
        return found


def make_commit(parent: str | None, title: str, description: str, tree: Mapping[str, Entry], *, count: int) -> Commit:
    """A commit whose id follows from what it holds and from how many there were before."""
    described = [parent, title, description, count, sorted((path, entry.oid) for path, entry in tree.items())]
    sha = hashlib.sha1(json.dumps(described).encode(), usedforsecurity=False).hexdigest()
    return Commit(sha, parent, title, description, dict(tree))


def below(paths: Iterable[str], folder: str) -> list[str]:
    """Those of `paths` that lie in `folder`; all of them if it is empty."""
    return [path for path in sorted(paths) if not folder or path.startswith(folder.rstrip("/") + "/")]
