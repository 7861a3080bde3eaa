"""A Hub on this machine that the unmodified `huggingface_hub` client talks to, with faults that a test asks for.

Files go up by LFS (basic or multipart) or, to a Xet store in a folder, as the client chooses; they come down by
`resolve` with ranges. GitHub's token endpoint of Actions is here too, so that keyless publishing can be run.
"""

from __future__ import annotations

import hashlib
import re
import socket
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from local_hub.api import Answers
from local_hub.faults import Fault
from local_hub.jobs import Job, JobAnswers, Ran
from local_hub.store import Entry, Publisher, Rejected, Repository, User

__all__ = ["Call", "LocalHub", "User"]

JOBS = r"/api/jobs/(?P<namespace>[\w.-]+)"

MODEL = r"/api/models/(?P<repo>[\w.-]+/[\w.-]+)"


@dataclass(frozen=True)
class Call:
    """A call that came in."""

    name: str
    method: str
    path: str
    user: str
    headers: Mapping[str, str]


class LocalHub:
    """The server and what it holds. Use it as a context manager.

    Attributes:
        repositories: by `owner/name`.
        tokens: users by token.
        faults: what goes wrong; the first that fits a call happens.
        calls: every call, in order.
        part_bytes: files above are uploaded in parts of this size; 0: in one piece.
        xet_folder: where a Xet store lies; empty: the Hub has none.
        publishers: who may publish without a token.
        oidc_job: the repository whose workflow asks for an id token.
        collections: models by the slug of their collection, `owner/name-id`.
        model_tags: tags by model, which a search finds it by.
        jobs: by id, in the order of their start.
        runs_job: runs the command of a job.
        schedules: scheduled jobs, as the Hub lists them.
        webhooks: as the Hub lists them.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.repositories: dict[str, Repository] = {}
        self.tokens: dict[str, User] = {}
        self.faults: list[Fault] = []
        self.calls: list[Call] = []
        self.blobs: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.part_bytes = 0
        self.xet_folder = ""
        self.publishers: list[Publisher] = []
        self.oidc_job = "org/workflow"
        self.collections: dict[str, list[str]] = {}
        self.model_tags: dict[str, list[str]] = {}
        self.jobs: dict[str, Job] = {}
        self.runs_job: Ran = lambda _: (0, "")
        self.schedules: list[dict[str, Any]] = []
        self.webhooks: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        handler = type("BoundHandler", (Handler,), {"hub": self})
        self._server = _Server((host, 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for fault in self.faults:
            fault.held.released.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(self, name: str, files: Mapping[str, bytes], **options: Any) -> Repository:
        """Make a repository with these files in its first commit."""
        repository = Repository(name, **options)
        repository.start({path: self.store(repository, path, content) for path, content in files.items()})
        self.repositories[name] = repository
        return repository

    def store(self, repository: Repository, path: str, content: bytes) -> Entry:
        """Keep the bytes of a file, and describe it as the repository's tree does."""
        sha256 = hashlib.sha256(content).hexdigest()
        self.blobs[sha256] = content
        large = repository.upload_mode(path, len(content)) == "lfs"
        return Entry.of(len(content), sha256, None if large else content)

    def change(self, name: str, files: Mapping[str, bytes | None], ref: str = "main", title: str = "Change") -> str:
        """Somebody's commit; returns its id."""
        repository = self.repositories[name]
        changes = {
            path: None if content is None else self.store(repository, path, content) for path, content in files.items()
        }
        return repository.commit(ref, changes, title=title)[0].sha

    def read(self, name: str, path: str, revision: str = "main") -> bytes:
        """The content of a file."""
        return self.blobs[self.repositories[name].resolve(revision).tree[path].sha256]

    def fail(self, call: str, kind: Any, **options: Any) -> Fault:
        """Have something go wrong; returns the fault, which counts the calls it met."""
        fault = Fault(call, kind, **options)
        self.faults.append(fault)
        return fault

    def counted(self, name: str) -> int:
        """How often a call came."""
        return sum(call.name == name for call in self.calls)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that a client or a fault cut are no news."""


@dataclass(frozen=True)
class Route:
    name: str
    method: str
    pattern: re.Pattern[str]
    answer: str


def _route(name: str, method: str, pattern: str) -> Route:
    return Route(name, method, re.compile(pattern), f"answer_{name.replace('-', '_')}")


ROUTES = (
    _route("whoami", "GET", r"/api/whoami-v2"),
    _route("validate-yaml", "POST", r"/api/validate-yaml"),
    _route("run-job", "POST", JOBS),
    _route("jobs", "GET", JOBS),
    _route("job", "GET", JOBS + r"/(?P<job>\w+)"),
    _route("cancel-job", "POST", JOBS + r"/(?P<job>\w+)/cancel"),
    _route("job-logs", "GET", JOBS + r"/(?P<job>\w+)/logs"),
    _route("schedule-job", "POST", r"/api/scheduled-jobs/(?P<namespace>[\w.-]+)"),
    _route("schedules", "GET", r"/api/scheduled-jobs/(?P<namespace>[\w.-]+)"),
    _route("make-webhook", "POST", r"/api/settings/webhooks"),
    _route("webhooks", "GET", r"/api/settings/webhooks"),
    _route("collection", "GET", r"/api/collections/(?P<slug>[\w.-]+/[\w.-]+)"),
    _route("collections", "GET", r"/api/collections"),
    _route("models", "GET", r"/api/models"),
    _route("create-repo", "POST", r"/api/repos/create"),
    _route("tree", "GET", MODEL + r"/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?"),
    _route("info", "GET", MODEL + r"(?:/revision/(?P<revision>[^/]+))?"),
    _route("refs", "GET", MODEL + r"/refs"),
    _route("commits", "GET", MODEL + r"/commits/(?P<revision>[^/]+)"),
    _route("delete-repo", "DELETE", r"/api/repos/delete"),
    _route("delete-branch", "DELETE", MODEL + r"/branch/(?P<branch>[^/]+)"),
    _route("create-branch", "POST", MODEL + r"/branch/(?P<branch>[^/]+)"),
    _route("preupload", "POST", MODEL + r"/preupload/(?P<revision>[^/]+)"),
    _route("commit", "POST", MODEL + r"/commit/(?P<revision>[^/]+)"),
    _route("xet-token", "GET", MODEL + r"/xet-(?P<kind>read|write)-token/(?P<revision>[^/]+)"),
    _route("discussions", "GET", MODEL + r"/discussions"),
    _route("discussion", "GET", MODEL + r"/discussions/(?P<number>\d+)"),
    _route("rename", "POST", MODEL + r"/discussions/(?P<number>\d+)/title"),
    _route("edit-comment", "POST", MODEL + r"/discussions/(?P<number>\d+)/comment/(?P<comment>\w+)/edit"),
    _route("lfs-batch", "POST", r"/(?P<repo>[\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch"),
    _route("lfs-upload", "PUT", r"/storage/(?P<sha256>[0-9a-f]{64})"),
    _route("lfs-part", "PUT", r"/storage/(?P<sha256>[0-9a-f]{64})/(?P<part>\d+)"),
    _route("lfs-complete", "POST", r"/storage/(?P<sha256>[0-9a-f]{64})/complete"),
    _route("lfs-verify", "POST", r"/storage/verify"),
    _route("head", "HEAD", r"/(?P<repo>[\w.-]+/[\w.-]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)"),
    _route("resolve", "GET", r"/(?P<repo>[\w.-]+/[\w.-]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)"),
    _route("id-token", "GET", r"/actions/id-token"),
    _route("oauth", "POST", r"/oauth/token"),
)


class Handler(JobAnswers, Answers):
    """Takes calls of one connection, has faults happen to them, and hands them on."""

    protocol_version = "HTTP/1.1"
    # Headers and body are sent apart: otherwise the body waits 40 ms for the client's delayed acknowledgement.
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        """Nothing: what matters is in `hub.calls`."""

    def do_GET(self) -> None:  # noqa: N802 so http.server wants it
        self._serve()

    do_POST = do_PUT = do_HEAD = do_DELETE = do_GET  # noqa: N815

    def _serve(self) -> None:
        self.parsed = urlsplit(self.path)
        self.queries = parse_qs(self.parsed.query)
        self.query = {name: values[0] for name, values in self.queries.items()}
        route, parts = self._find()
        if route is None:
            self._read_body()
            self.send_json(404, {"error": f"no such route: {self.command} {self.path}"})
            return
        with self.hub.lock:
            user = self.user(quiet=True)
            name = "" if user is None else user.name
            self.hub.calls.append(Call(route.name, self.command, self.path, name, dict(self.headers)))
            happening = [one for one in self.hub.faults if one.happens(route.name, self.parsed.path)]
            fault = happening[0] if happening else None
        if fault is not None and self._spoil(fault, before=True):
            return
        self.body = self._read_body()
        self.fault = fault
        try:
            answer = getattr(self, route.answer)(**{name: part and unquote(part) for name, part in parts.items()})
        except Rejected as rejected:
            headers = {"X-Error-Code": rejected.code} if rejected.code else {}
            headers |= {"X-Error-Message": rejected.message.replace("\n", " ")}
            self.send_json(rejected.status, rejected.body or {"error": rejected.message}, headers)
            return
        if fault is not None and self._spoil(fault, before=False):
            return
        if answer is not None:
            self.send_json(200, answer)

    def _find(self) -> tuple[Route | None, dict[str, str]]:
        for route in ROUTES:
            found = route.pattern.fullmatch(self.parsed.path)
            if found and route.method == self.command:
                return route, found.groupdict()
        return None, {}

    def _spoil(self, fault: Fault, *, before: bool) -> bool:
        """Do what the fault says at this point; true if the call ends with it."""
        if before and fault.kind == "status":
            self._read_body()
            self.send_json(fault.status, {"error": f"status {fault.status} by request"}, fault.headers)
            return True
        if before and fault.kind == "reset":
            self.rfile.read(min(1024, int(self.headers.get("Content-Length") or 0) // 2))
            self._reset()
            return True
        if before and fault.kind == "slow":
            time.sleep(fault.seconds)
        if before and fault.action is not None:
            fault.action()
        if fault.kind == "held" and before != fault.done:
            fault.held.reached.set()
            fault.held.released.wait()
        if not before and fault.kind == "lost":
            self._reset()
            return True
        return False

    def _reset(self) -> None:
        """Cut the connection so that the client sees a reset, not an end."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            content = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))
