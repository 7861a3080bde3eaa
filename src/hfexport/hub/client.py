"""The Hub, as everything here sees it: one client, calls that are tried again, errors in words for the user.

`huggingface_hub` speaks to the Hub and honours `HF_ENDPOINT`, `HF_HOME` and `HF_HUB_OFFLINE`. Importing this module
does not import it; making a `Hub` does.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from hfexport.errors import CheckpointError, HfexportError

if TYPE_CHECKING:
    import httpx2
    from huggingface_hub import HfApi

__all__ = ["Hub", "HubFile", "Transient", "git_sha1"]

T = TypeVar("T")

WAITS_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Before each further attempt; an answer that says when to come back is believed, up to `LONGEST_WAIT_S`."""
LONGEST_WAIT_S: Final = 120.0
TRANSIENT_STATUS: Final = (408, 425, 429, 500, 502, 503, 504)
LARGEST_BLOB_BYTES: Final = 2**25
"""More than the Hub takes outside of large file storage."""
CONNECT_TIMEOUT_S: Final = 20.0
ANSWER_TIMEOUT_S: Final = 300.0
"""How long one answer may take; committing thousands of large files does take minutes."""


class Transient(Exception):
    """A call failed in a way that may pass, and went on failing. Its cause is what the client raised last."""


@dataclass(frozen=True)
class HubFile:
    """A file of a commit on the Hub.

    Attributes:
        path: from the repository's root.
        size_bytes: of the content.
        git_sha1: git's hash of the blob: of the content, or of the pointer where it is a large file.
        sha256: of the content, if it is a large file.
    """

    path: str
    size_bytes: int
    git_sha1: str
    sha256: str | None

    def holds(self, path: Path, sha256: str) -> bool:
        """Whether this is the file at `path` here, of that SHA-256."""
        if path.stat().st_size != self.size_bytes:
            return False
        if self.sha256 is not None:
            return sha256 == self.sha256
        # The client's cached listing does not say which files are large; git then has the hash of a pointer to it.
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {self.size_bytes}\n"
        if self.git_sha1 == git_sha1(pointer.encode()):
            return True
        return self.size_bytes <= LARGEST_BLOB_BYTES and self.git_sha1 == git_sha1(path.read_bytes())


class Hub:
    """A client of the Hub.

    Args:
        token: of the user; `None` asks without one. A stored login is not looked for.
        note: is told when a call is tried again.
        failure: the class of the errors it raises.
        endpoint: URL; if not given, the client's own, which `HF_ENDPOINT` sets.
        sleep: waits that many seconds.
    """

    def __init__(
        self,
        token: str | None = None,
        *,
        note: Callable[[str], None] = lambda _: None,
        failure: type[HfexportError] = CheckpointError,
        endpoint: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        import logging

        from huggingface_hub import HfApi, set_client_factory
        from huggingface_hub.utils.tqdm import disable_progress_bars

        set_client_factory(_client)
        disable_progress_bars()
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # calls that are tried again are told by `note`
        self.token: str | bool = token or False
        self.api: HfApi = HfApi(endpoint=endpoint, token=self.token, library_name="hfexport")
        self.endpoint = self.api.endpoint
        self._note = note
        self._failure = failure
        self._sleep = sleep

    @property
    def offline(self) -> bool:
        """Whether `HF_HUB_OFFLINE` keeps the client to its cache."""
        from huggingface_hub.constants import is_offline_mode

        return is_offline_mode()

    def commit_of(self, repository: str, revision: str) -> str:
        """The commit id that a branch, tag, commit or `refs/pr/N` names.

        Raises:
            HfexportError: of the class given, with what to do: it is not there, is gated, no network, …
        """
        with self.explained(repository, revision):
            if self.offline:
                return self.api.resolve_revision(repository, revision=revision, local_files_only=True).resolved
            found = self.retried(lambda: self.api.model_info(repository, revision=revision)).sha
            if revision != found:
                # Told to the cache as well, for a later run with HF_HUB_OFFLINE. Alone this would not do: where the
                # Hub cannot be reached it answers from the cache.
                _hint(lambda: self.api.resolve_revision(repository, revision=revision))
        return str(found)

    def files(self, repository: str, commit: str) -> dict[str, HubFile]:
        """Every file of a commit, by path."""
        from huggingface_hub import get_cached_repo_tree
        from huggingface_hub.hf_api import RepoFile

        def listed() -> list[Any]:
            return list(self.api.list_repo_tree(repository, revision=commit, recursive=True))

        with self.explained(repository, commit):
            entries = get_cached_repo_tree(repository, revision=commit) if self.offline else self.retried(listed)
        return {
            entry.path: HubFile(entry.path, entry.size, entry.blob_id, entry.lfs.sha256 if entry.lfs else None)
            for entry in entries
            if isinstance(entry, RepoFile)
        }

    def download(self, repository: str, commit: str, paths: Iterable[str], *, again: bool = False) -> Path:
        """Bring files of a commit into the client's cache; returns the folder that holds them under their paths.

        Args:
            repository: `owner/name`.
            commit: its id; what is in the cache already is not asked for.
            paths: from the repository's root.
            again: even if they are in the cache.
        """
        from huggingface_hub import snapshot_download

        def fetch() -> str:
            return snapshot_download(
                repository,
                revision=commit,
                allow_patterns=[_literally(path) for path in paths],
                token=self.token,
                endpoint=self.endpoint,
                force_download=again,
                library_name="hfexport",
            )

        with self.explained(repository, commit):
            return Path(self.retried(fetch))

    def retried(self, call: Callable[[], T]) -> T:
        """What `call` returns, tried again with growing pauses while the failure is one that may pass.

        Raises:
            Transient: it went on failing.
            Exception: anything else that `call` raised.
        """
        import httpx2
        from huggingface_hub.errors import HfHubHTTPError

        # What the client raises around these: OSError (a download of the wrong size), RuntimeError (an upload).
        for attempt, wait_s in enumerate((*WAITS_S, None), start=1):
            try:
                return _abandonable(call)
            except (HfHubHTTPError, httpx2.HTTPError, OSError, RuntimeError) as error:
                reason = transient_reason(error)
                if reason is None:
                    raise
                if wait_s is None:
                    raise Transient(reason) from error
                pause_s = min(max(wait_s, _asked_wait_s(error)), LONGEST_WAIT_S)
                self._note(f"{self.endpoint}: {reason}; tried again in {pause_s:g} s ({attempt} of {len(WAITS_S)})")
                self._sleep(pause_s)
        raise AssertionError("unreachable")

    def explained(self, repository: str, revision: str = "") -> _Explained:
        """A context in which what the client raises becomes an error for the user."""
        return _Explained(self, repository, revision, self._failure)

    def revisions(self, repository: str) -> list[str]:
        """Names of branches and tags; empty if they cannot be had."""
        refs = _hint(lambda: self.api.list_repo_refs(repository))
        return [] if refs is None else [ref.name for ref in (*refs.branches, *refs.tags)]


@dataclass(frozen=True)
class _Explained:
    """See `Hub.explained`."""

    hub: Hub
    repository: str
    revision: str
    failure: type[HfexportError]

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        import httpx2
        from huggingface_hub import errors

        known = (
            *(httpx2.HTTPError, errors.HfHubHTTPError, errors.HFValidationError, errors.OIDCError, Transient),
            *(errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, errors.RevisionResolutionError),
            errors.CachedRepoTreeNotFoundError,
        )
        if isinstance(error, RuntimeError) and error.__cause__ is not None:  # what the client raises around an upload
            error = next((one for one in _chain(error) if isinstance(one, known)), error)
        if isinstance(error, known):
            message, remedy = self._words(error)
            raise self.failure(message, remedy=remedy) from error

    def _words(self, error: BaseException) -> tuple[str, str]:
        """What was found, and what to do about it."""
        import httpx2

        hub = self.hub
        if hub.offline:
            return (
                f"{self.repository}: {self.revision!r} is not (wholly) in the cache, and HF_HUB_OFFLINE is set",
                "Run it once with a network, or unset HF_HUB_OFFLINE.",
            )
        if isinstance(error, Transient | httpx2.TransportError):
            return (
                f"{hub.endpoint}: cannot be reached: {_first_line(error)}",
                "Check the network, or HF_ENDPOINT; with HF_HUB_OFFLINE=1 what is in the cache is used.",
            )
        return self._refusal(error)

    def _refusal(self, error: BaseException) -> tuple[str, str]:
        """The same, where the Hub did answer."""
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

        hub, name, status = self.hub, self.repository, _status(error)
        if isinstance(error, GatedRepoError):
            remedy = f"Ask for access at {hub.endpoint}/{name}, then give a token of that account as hub-token."
            return f"{name}: is gated, and {self._who()} has no access to it", remedy
        if isinstance(error, RevisionNotFoundError):
            known = hub.revisions(name)
            listed = f" It has {', '.join(known[:10])}." if known else ""
            return f"{name}: has no revision {self.revision!r}", f"Give a branch, a tag or a commit.{listed}"
        if isinstance(error, RepositoryNotFoundError) or status in (401, 404):
            remedy = "Check the name; for a private model give a token that may read it as hub-token."
            if hub.token:
                remedy = "Check the name, and that the token is valid and may read it."
            return f"{name}: is no model at {hub.endpoint}, or not one that {self._who()} may see", remedy
        if status == 403:
            return f"{name}: {self._who()} may not do this: {_first_line(error)}", "Give a token with the right to."
        return f"{name}: the Hub answered: {_first_line(error)}", "Change what it names, or try again later."

    def _who(self) -> str:
        return "this token" if self.hub.token else "a request without a token"


def _hint(call: Callable[[], T]) -> T | None:
    """What `call` returns, or `None` whatever it raises: for calls whose answer only helps, which must fail no run."""
    try:
        return _abandonable(call)
    except Exception:  # noqa: BLE001
        return None


def _abandonable(call: Callable[[], T]) -> T:
    """What `call` returns; a signal that ends this process does not wait for it.

    The client waits, on its way out, for whatever its threads are moving, which may be gigabytes.
    """
    thread = ThreadPoolExecutor(max_workers=1)
    try:
        return thread.submit(call).result()
    finally:
        thread.shutdown(wait=False)


def git_sha1(content: bytes) -> str:
    """The id that git gives to a blob of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _client() -> httpx2.Client:
    """The client's own, which would wait for an answer without end, with time limits."""
    import httpx2

    from hfexport._internal.upstream.hub_client import default_client_factory

    client = default_client_factory()
    client.timeout = httpx2.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    return client


def transient_reason(error: BaseException) -> str | None:
    """In a few words what happened, if it may pass by itself; `None` if trying again would not help."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    for one in _chain(error):
        if isinstance(one, httpx2.ProxyError | httpx2.UnsupportedProtocol):
            return None
        if isinstance(one, httpx2.TimeoutException):
            return "no answer in time"
        if isinstance(one, httpx2.NetworkError | httpx2.RemoteProtocolError):
            return f"the connection failed ({str(one) or type(one).__name__})"
        if isinstance(one, HfHubHTTPError) and _status(one) in TRANSIENT_STATUS:
            return f"answered {_status(one)}"
        if type(one) is OSError and "Consistency check failed" in str(one):
            return "a download ended early"
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and what it came from."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _status(error: BaseException) -> int:
    """The HTTP status of an answer; 0 if there was none."""
    response = getattr(error, "response", None)
    return int(getattr(response, "status_code", 0) or 0)


def _asked_wait_s(error: BaseException) -> float:
    """How long the answer asked to wait."""
    for one in _chain(error):
        headers: Mapping[str, str] = getattr(getattr(one, "response", None), "headers", None) or {}
        text = headers.get("Retry-After", "")
        if text.isdigit():
            return float(text)
    return 0.0


def _first_line(error: BaseException) -> str:
    server = getattr(error, "server_message", None)
    lines = [line.strip() for line in (str(server) if server else str(error)).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _literally(path: str) -> str:
    """A pattern that matches `path` alone."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in path)
