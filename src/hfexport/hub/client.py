"""Client of the Hugging Face Hub: adds retries, time limits and clear errors to `huggingface_hub`.

`huggingface_hub` honours `HF_ENDPOINT`, `HF_HOME` and `HF_HUB_OFFLINE`. It is imported when a `Hub` is created, not
when this module is imported.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from hfexport.errors import CheckpointError, HfexportError, first_line

if TYPE_CHECKING:
    import httpx2
    from huggingface_hub import HfApi

__all__ = ["Hub", "HubFile", "Transient", "configure_process", "git_sha1"]

T = TypeVar("T")

WAITS_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Pause before each retry. A longer pause that the server asks for is honoured, up to `LONGEST_WAIT_S`."""
LONGEST_WAIT_S: Final = 120.0
TRANSIENT_STATUS: Final = (408, 425, 429, 500, 502, 503, 504)
LARGEST_BLOB_BYTES: Final = 2**25
"""Upper bound for the size of a file that the Hub stores outside of large file storage."""
CONNECT_TIMEOUT_S: Final = 20.0
ANSWER_TIMEOUT_S: Final = 300.0
"""Time limit for one answer. Committing thousands of large files takes minutes."""


class Transient(Exception):
    """A call still failed after all retries with an error that may pass. `__cause__` is the client's last error."""


@dataclass(frozen=True)
class HubFile:
    """A file in a commit on the Hub.

    Attributes:
        path: path from the repository's root.
        size_bytes: size of the content.
        git_sha1: git hash of the blob: of the content, or of the LFS pointer for a large file.
        sha256: hash of the content; `None` if the file is not large or the listing does not say.
    """

    path: str
    size_bytes: int
    git_sha1: str
    sha256: str | None

    def holds(self, path: Path, sha256: str) -> bool:
        """Return whether the local file at `path`, with this SHA-256, has the same content."""
        if path.stat().st_size != self.size_bytes:
            return False
        if self.sha256 is not None:
            return sha256 == self.sha256
        # The client's cached listing does not mark large files; the git hash is then that of the LFS pointer.
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {self.size_bytes}\n"
        if self.git_sha1 == git_sha1(pointer.encode()):
            return True
        return self.size_bytes <= LARGEST_BLOB_BYTES and self.git_sha1 == git_sha1(path.read_bytes())


class Hub:
    """Client of the Hub with retries and error messages for users.

    Args:
        token: token of the user. With `None`, requests carry no token; a stored login is not used.
        note: called with a message when a call is retried.
        failure: class of the errors to raise.
        endpoint: URL of the Hub; by default the client's own, which `HF_ENDPOINT` sets.
        sleep: function that waits for a number of seconds.
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
        from huggingface_hub import HfApi

        self.token: str | bool = token or False
        self.api: HfApi = HfApi(endpoint=endpoint, token=self.token, library_name="hfexport")
        self.endpoint = self.api.endpoint
        self._note = note
        self._failure = failure
        self._sleep = sleep

    @property
    def offline(self) -> bool:
        """Whether `HF_HUB_OFFLINE` restricts the client to its cache."""
        from huggingface_hub.constants import is_offline_mode

        return is_offline_mode()

    def commit_of(self, repository: str, revision: str) -> str:
        """Resolve a branch, tag, commit or `refs/pr/N` to a commit id.

        Raises:
            HfexportError: the revision cannot be resolved. The class is `failure`; the remedy depends on the cause.
        """
        with self.explained(repository, revision):
            if self.offline:
                return self.api.resolve_revision(repository, revision=revision, local_files_only=True).resolved
            found = self.retried(lambda: self.api.model_info(repository, revision=revision)).sha
            if revision != found:
                # Also record the revision in the cache, for later offline runs. This call alone can return a stale
                # entry when the Hub cannot be reached.
                _hint(lambda: self.api.resolve_revision(repository, revision=revision))
        return str(found)

    def files(self, repository: str, commit: str) -> dict[str, HubFile]:
        """List every file of a commit, by path."""
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
        """Download files of a commit into the client's cache and return the folder that holds them.

        Args:
            repository: `owner/name`.
            commit: commit id. Files that are already in the cache are not downloaded.
            paths: paths from the repository's root.
            again: download the files even if they are in the cache.
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
        """Run `call` and return its result; retry with growing pauses after errors that may pass.

        Raises:
            Transient: the call failed after all retries.
            Exception: any other error of `call`.
        """
        import httpx2
        from huggingface_hub.errors import HfHubHTTPError

        # The client wraps some of these errors: OSError for a download of the wrong size, RuntimeError for an upload.
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
                self._note(f"{self.endpoint}: {reason}; retrying in {pause_s:g} s ({attempt} of {len(WAITS_S)})")
                self._sleep(pause_s)
        raise AssertionError("unreachable")

    def explained(self, repository: str, revision: str = "") -> _Explained:
        """Return a context manager that turns errors of the client into errors for the user."""
        return _Explained(self, repository, revision, self._failure)

    def revisions(self, repository: str) -> list[str]:
        """List the names of branches and tags; empty if the Hub does not list them."""
        refs = _hint(lambda: self.api.list_repo_refs(repository))
        return [] if refs is None else [ref.name for ref in (*refs.branches, *refs.tags)]


@dataclass(frozen=True)
class _Explained:
    """Context manager that `Hub.explained` returns."""

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
        if isinstance(error, RuntimeError) and error.__cause__ is not None:  # the client wraps upload errors
            error = next((one for one in _chain(error) if isinstance(one, known)), error)
        if isinstance(error, known):
            message, remedy = self._words(error)
            may_pass = isinstance(error, Transient | httpx2.TransportError) and not self.hub.offline
            raise self.failure(message, remedy=remedy).by("network" if may_pass else "") from error

    def _words(self, error: BaseException) -> tuple[str, str]:
        """Return the error's message and remedy."""
        import httpx2

        hub = self.hub
        if hub.offline:
            return (
                f"{self.repository}: {self.revision!r} is not completely in the cache, and HF_HUB_OFFLINE is set",
                "Run it once with a network, or unset HF_HUB_OFFLINE.",
            )
        if isinstance(error, Transient | httpx2.TransportError):
            return (
                f"{hub.endpoint}: cannot be reached: {_answer(error)}",
                "Check the network and HF_ENDPOINT, or set HF_HUB_OFFLINE=1 to use only the cache.",
            )
        return self._refusal(error)

    def _refusal(self, error: BaseException) -> tuple[str, str]:
        """Return message and remedy for an error that the Hub answered with."""
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

        hub, name, status = self.hub, self.repository, _status(error)
        if isinstance(error, GatedRepoError):
            remedy = f"Ask for access at {hub.endpoint}/{name}, then give a token of that account as hub-token."
            return f"{name}: the model is gated, and {self._who()} has no access to it", remedy
        if isinstance(error, RevisionNotFoundError):
            known = hub.revisions(name)
            listed = f" It has {', '.join(known[:10])}." if known else ""
            return f"{name}: has no revision {self.revision!r}", f"Give a branch, a tag or a commit.{listed}"
        if isinstance(error, RepositoryNotFoundError) or status in (401, 404):
            remedy = "Check the name; for a private model give a token that may read it as hub-token."
            if hub.token:
                remedy = "Check the name, and that the token is valid and may read it."
            return f"{name}: no such model at {hub.endpoint}, or {self._who()} may not see it", remedy
        if status == 403:
            return f"{name}: {self._who()} may not do this: {_answer(error)}", "Give a token with this permission."
        return f"{name}: the Hub answered: {_answer(error)}", "Correct what the answer names, or try again later."

    def _who(self) -> str:
        return "this token" if self.hub.token else "a request without a token"


def _hint(call: Callable[[], T]) -> T | None:
    """Run an optional call; return its result, or `None` if it raises anything, so that it cannot fail the run."""
    try:
        return _abandonable(call)
    except Exception:  # noqa: BLE001
        return None


def _abandonable(call: Callable[[], T]) -> T:
    """Run `call` in a thread and return its result, so that a signal can end the process at once.

    In the main thread the client would first wait for its transfers, which can be gigabytes.
    """
    thread = ThreadPoolExecutor(max_workers=1)
    try:
        return thread.submit(call).result()
    finally:
        thread.shutdown(wait=False)


def git_sha1(content: bytes) -> str:
    """Compute the id that git gives to a blob with this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def configure_process() -> None:
    """Set time limits for all requests of `huggingface_hub` in this process, and silence its progress bars and log.

    For command lines, which own their process. A library call must not change other users of `huggingface_hub`.
    """
    import logging

    from huggingface_hub import set_client_factory
    from huggingface_hub.utils.tqdm import disable_progress_bars

    set_client_factory(_client)
    disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # `Hub` reports the retries


def _client() -> httpx2.Client:
    """Create the client's default HTTP client, with time limits added; by default it waits without end."""
    import httpx2

    from hfexport._internal.upstream.hub_client import default_client_factory

    client = default_client_factory()
    client.timeout = httpx2.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    return client


def transient_reason(error: BaseException) -> str | None:
    """Describe an error that a retry may cure in a few words; return `None` if a retry would not help."""
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
    """Iterate over an exception and its causes."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _status(error: BaseException) -> int:
    """Return the HTTP status of the answer that an error carries; 0 if there was no answer."""
    response = getattr(error, "response", None)
    return int(getattr(response, "status_code", 0) or 0)


def _asked_wait_s(error: BaseException) -> float:
    """Return the pause that the server asked for in `Retry-After`; 0 if none."""
    for one in _chain(error):
        headers: Mapping[str, str] = getattr(getattr(one, "response", None), "headers", None) or {}
        text = headers.get("Retry-After", "")
        if text.isdigit():
            return float(text)
    return 0.0


def _answer(error: BaseException) -> str:
    """Return the first line of the Hub's answer, or of the error if there was none."""
    server = getattr(error, "server_message", None)
    return first_line(RuntimeError(server) if server else error)


def _literally(path: str) -> str:
    """Return a glob pattern that matches only `path`."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in path)
