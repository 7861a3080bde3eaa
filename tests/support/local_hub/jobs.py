"""The Hub's Jobs API: jobs whose command a test runs, their logs as server-sent events, schedules and webhooks."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from local_hub.faults import Fault
from local_hub.store import Rejected, User

if TYPE_CHECKING:
    from local_hub.server import LocalHub

__all__ = ["Job", "JobAnswers", "Ran"]

EPOCH = "2026-01-01T00:00:00.000Z"

Ran = Callable[["Job"], tuple[int, str]]
"""Runs the command of a job, adds its lines with `say`, and returns the exit code and the Hub's message."""


@dataclass
class Job:
    """A job: what was asked for, its log, and how it ended."""

    id: str
    owner: str
    spec: Mapping[str, Any]
    stage: str = "RUNNING"
    message: str = ""
    lines: list[str] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def say(self, line: str) -> None:
        """Add a line to the log."""
        with self.changed:
            self.lines.append(line)
            self.changed.notify_all()

    def end(self, stage: str, message: str = "") -> None:
        """End the job, unless it has ended."""
        with self.changed:
            if self.stage == "RUNNING":
                self.stage, self.message = stage, message
            self.changed.notify_all()

    @property
    def ended(self) -> bool:
        return self.stage != "RUNNING"

    def to_dict(self) -> dict[str, Any]:
        """As the Hub shows it; secrets by their names."""
        spec = {name: self.spec.get(name) for name in ("dockerImage", "command", "environment", "flavor", "labels")}
        return {
            **{
                "id": self.id,
                "createdAt": EPOCH,
                "owner": {"id": "0" * 24, "name": self.owner, "type": "user"},
                **spec,
            },
            **{"status": {"stage": self.stage, "message": self.message or None}},
            "secrets": dict.fromkeys(self.spec.get("secrets", {}), ""),
        }


class JobAnswers(BaseHTTPRequestHandler):
    """Answers of the Jobs API, see `local_hub.api.Answers`."""

    hub: LocalHub
    fault: Fault | None
    queries: dict[str, list[str]]

    def _account(self, namespace: str) -> None:
        user: User | None = self.user()  # type: ignore[attr-defined]
        if user is None:
            raise Rejected(401, "Invalid username or password.")
        if user.name != namespace:
            raise Rejected(403, f"You cannot run jobs as {namespace}")

    def _body(self) -> Any:
        return json.loads(self.body)  # type: ignore[attr-defined]

    def _job(self, namespace: str, job: str) -> Job:
        self._account(namespace)
        if job not in self.hub.jobs:
            raise Rejected(404, "Job not found")
        return self.hub.jobs[job]

    def answer_run_job(self, namespace: str) -> Any:
        self._account(namespace)
        spec = self._body()
        job = Job(f"{len(self.hub.jobs) + 1:024x}", namespace, spec)
        self.hub.jobs[job.id] = job

        def work() -> None:
            code, message = self.hub.runs_job(job)
            job.end("COMPLETED" if code == 0 else "ERROR", message)

        threading.Thread(target=work, daemon=True).start()
        return job.to_dict()

    def answer_jobs(self, namespace: str) -> Any:
        self._account(namespace)
        wanted = dict(label.split("=", 1) for label in self.queries.get("label", []))
        return [
            job.to_dict()
            for job in reversed(list(self.hub.jobs.values()))
            if wanted.items() <= dict(job.spec.get("labels") or {}).items()
        ]

    def answer_job(self, namespace: str, job: str) -> Any:
        return self._job(namespace, job).to_dict()

    def answer_cancel_job(self, namespace: str, job: str) -> Any:
        self._job(namespace, job).end("CANCELED")
        return {}

    def answer_job_logs(self, namespace: str, job: str) -> None:
        """Send the log from its beginning as it grows, in chunks, until the job ends."""
        found = self._job(namespace, job)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        sent = 0
        cut = self.fault is not None and self.fault.kind == "truncated"
        while True:
            with found.changed:
                while len(found.lines) == sent and not found.ended:
                    found.changed.wait(timeout=60)
                new, over = found.lines[sent:], found.ended
            for line in new:
                event = json.dumps({"data": line, "timestamp": EPOCH})
                self._chunk(f"data: {event}\n\n".encode())
                sent += 1
                if cut:
                    self._reset()  # type: ignore[attr-defined]
                    return
            if over and sent == len(found.lines):
                self._chunk(b"")
                return

    def _chunk(self, content: bytes) -> None:
        self.wfile.write(b"%x\r\n" % len(content) + content + b"\r\n")
        self.wfile.flush()

    def answer_schedule_job(self, namespace: str) -> Any:
        self._account(namespace)
        asked = self._body()
        made = {
            **{"id": f"{len(self.hub.schedules) + 1:024x}", "createdAt": EPOCH, **asked, "status": {}},
            "owner": {"id": "0" * 24, "name": namespace, "type": "user"},
        }
        self.hub.schedules.append(made)
        return made

    def answer_schedules(self, namespace: str) -> Any:
        self._account(namespace)
        return self.hub.schedules

    def answer_make_webhook(self) -> Any:
        asked = self._body()
        job = self.hub.jobs[asked["jobSourceId"]]
        made = {
            **{"id": f"{len(self.hub.webhooks) + 1:024x}", "watched": asked["watched"], "domains": asked["domains"]},
            **{"job": dict(job.spec), "disabled": False, "secrets": asked.get("secrets")},
        }
        self.hub.webhooks.append(made)
        return {"webhook": made}

    def answer_webhooks(self) -> Any:
        return self.hub.webhooks
