"""Run hfexport's container as a Job on the Hub: start, follow, cancel, schedule, and by a webhook."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hfexport.errors import JobError
from hfexport.hub.client import Hub, Transient, transient_reason

if TYPE_CHECKING:
    from huggingface_hub import JobInfo

__all__ = ["EXIT_CODE_LINE", "JobSpec", "Jobs", "Started", "said_exit_code"]

LABEL: Final = "hfexport"
"""Label of every job of hfexport."""
_REQUEST: Final = "hfexport-request"
"""Label with an id of its own for each submission, to find a job whose answer was lost."""

EXIT_CODE_LINE: Final = "hfexport ended with exit code "
"""Last line in the log of a job, since the Hub reports a job's stage but not its exit code."""

RECONNECTS: Final = 10
"""Lost log streams in a row, without a new line, after which following ends."""

_KILLED: Final = 137
"""Exit code of a container that was killed, most often because memory ran out."""


@dataclass(frozen=True)
class JobSpec:
    """A job to start.

    Attributes:
        image: image of the container.
        command: command line in it.
        flavor: hardware, such as `cpu-xl`.
        timeout: time limit, such as `6h`.
        secrets: variables that the Hub keeps encrypted, with the token.
        env: plain variables.
        name: model, for the list of jobs.
    """

    image: str
    command: Sequence[str]
    flavor: str
    timeout: str
    secrets: Mapping[str, str]
    env: Mapping[str, str]
    name: str

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the client's calls that start or schedule a job."""
        return {
            **{"image": self.image, "command": list(self.command), "flavor": self.flavor, "timeout": self.timeout},
            **{"env": dict(self.env), "secrets": dict(self.secrets)},
            "labels": {LABEL: "export", "name": re.sub(r"[^\w-]", "-", f"hfexport-{self.name}")},
        }


@dataclass(frozen=True)
class Started:
    """A job that was started.

    Attributes:
        id: its id.
        url: its page.
    """

    id: str
    url: str


def said_exit_code(line: str) -> int | None:
    """Return the exit code that the last line of a job's log reports; `None` if it is another line."""
    found = re.fullmatch(re.escape(EXIT_CODE_LINE) + r"(\d{1,3})", line.strip())
    return int(found[1]) if found else None


class Jobs:
    """The jobs of one account.

    Args:
        hub: client with a token, whose `failure` is `JobError`.
        namespace: user or organisation that pays; `None` for the token's user.
        note: called with messages.
        sleep: function that waits for a number of seconds.
    """

    def __init__(
        self,
        hub: Hub,
        namespace: str | None,
        note: Callable[[str], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._hub = hub
        self._note = note
        self._sleep = sleep
        with hub.explained("the token"):
            self.namespace: str = namespace or hub.retried(lambda: str(hub.api.whoami()["name"]))

    def start(self, spec: JobSpec) -> Started:
        """Start a job, once even if the answer to a call is lost.

        Raises:
            JobError: the Hub does not start it.
        """
        request = uuid.uuid4().hex
        arguments = spec.arguments()
        arguments["labels"][_REQUEST] = request
        attempts = 0

        def attempt() -> JobInfo:
            nonlocal attempts
            attempts += 1
            if attempts > 1:
                known = list(self._hub.api.list_jobs(labels={_REQUEST: request}, namespace=self.namespace))
                if known:
                    return known[0]
            return self._hub.api.run_job(**arguments, namespace=self.namespace)

        with self._hub.explained(f"a job of {self.namespace}"):
            made = self._hub.retried(attempt)
        return Started(made.id, made.url)

    def schedule(self, spec: JobSpec, schedule: str) -> str:
        """Start a job regularly; return the id of the schedule. The same schedule is not made twice.

        Args:
            spec: the job.
            schedule: `@daily`, `@hourly`, … or a cron expression.
        """
        api = self._hub.api

        def attempt() -> str:
            for one in api.list_scheduled_jobs(namespace=self.namespace):
                same = one.job_spec.command == list(spec.command) and one.job_spec.docker_image == spec.image
                if same and one.schedule == schedule:
                    return str(one.id)
            arguments = {**spec.arguments(), "schedule": schedule, "concurrency": False, "namespace": self.namespace}
            return str(api.create_scheduled_job(**arguments).id)

        with self._hub.explained(f"a schedule of {self.namespace}"):
            return self._hub.retried(attempt)

    def watch(self, repository: str, job_id: str, secrets: Mapping[str, str]) -> str:
        """Start a job again at every change of a model's repository; return the webhook's id.

        Args:
            repository: the model that is watched.
            job_id: job whose image and command are used.
            secrets: secret variables of the jobs; those of the first job are not copied.
        """
        api = self._hub.api
        watched: list[Any] = [{"type": "model", "name": repository}]

        def attempt() -> str:
            command = api.inspect_job(job_id=job_id, namespace=self.namespace).command
            for hook in api.list_webhooks():
                watches = any(item.name == repository for item in hook.watched)
                if watches and hook.job is not None and hook.job.command == command:
                    return str(hook.id)
            made = api.create_webhook(job_id=job_id, watched=watched, domains=["repo"], secrets=dict(secrets))
            return str(made.id)

        with self._hub.explained(f"a webhook of {repository}"):
            return self._hub.retried(attempt)

    def listed(self) -> list[JobInfo]:
        """Return the jobs of hfexport, as the Hub lists them."""
        with self._hub.explained(f"the jobs of {self.namespace}"):
            return self._hub.retried(
                lambda: list(self._hub.api.list_jobs(labels={LABEL: "export"}, namespace=self.namespace))
            )

    def cancel(self, job_id: str) -> None:
        """Cancel a job."""
        with self._hub.explained(f"job {job_id}"):
            self._hub.retried(lambda: self._hub.api.cancel_job(job_id=job_id, namespace=self.namespace))

    def follow(self, job_id: str, show: Callable[[str], None]) -> int:
        """Show the log of a job as it grows until the job ends; return the exit code of its command.

        Args:
            job_id: id of the job.
            show: called with each line.

        Raises:
            JobError: the job did not end by itself (killed, cancelled, too long), or cannot be followed.
        """
        said: int | None = None
        for line in self._lines(job_id):
            code = said_exit_code(line)
            if code is None:
                show(line)
            else:
                said = code
        return self._exit_code(self._inspect(job_id), said)

    def _lines(self, job_id: str) -> Iterator[str]:
        """Yield every line of a job's log once; a lost stream is opened again."""
        seen = lost = 0
        while True:
            whole = False
            try:
                for number, line in enumerate(self._stream(job_id, follow=True)):
                    if number >= seen:
                        seen, lost = number + 1, 0
                        yield line
                whole = lost == 0
            except Transient as error:
                lost += 1
                if lost > RECONNECTS:
                    raise JobError(
                        f"job {job_id}: its log is lost ({error}); the job may still run",
                        remedy=f"Come back to it with: hfexport jobs {job_id}",
                    ).by("network") from error
                self._note(f"the log of job {job_id} was lost ({error}); asks for it again")
                self._sleep(min(2.0**lost, 30.0))
            if self._has_ended(self._inspect(job_id)):
                if not whole:
                    yield from self._rest(job_id, seen)
                return

    def _stream(self, job_id: str, *, follow: bool) -> Iterator[str]:
        """Yield the log from its beginning.

        Raises:
            Transient: the stream was lost.
            JobError: the Hub refuses it.
        """
        try:
            yield from self._hub.api.fetch_job_logs(job_id=job_id, namespace=self.namespace, follow=follow)
        except Exception as error:  # of httpx or the Hub client; all that is not transient is raised again
            if (reason := transient_reason(error)) is not None:
                raise Transient(reason) from error
            with self._hub.explained(f"job {job_id}"):
                raise

    def _rest(self, job_id: str, seen: int) -> Iterator[str]:
        """Yield the lines of an ended job's log after the first `seen` ones, as far as the Hub still has them."""
        try:
            yield from list(self._stream(job_id, follow=False))[seen:]
        except Transient as error:
            self._note(f"the end of the log of job {job_id} is lost ({error})")

    def _inspect(self, job_id: str) -> JobInfo:
        with self._hub.explained(f"job {job_id}"):
            return self._hub.retried(lambda: self._hub.api.inspect_job(job_id=job_id, namespace=self.namespace))

    @staticmethod
    def _has_ended(job: JobInfo) -> bool:
        return str(job.status.stage) in ("COMPLETED", "CANCELED", "ERROR", "DELETED")

    @staticmethod
    def _exit_code(job: JobInfo, said: int | None) -> int:
        """Return the exit code of an ended job's command.

        Raises:
            JobError: the job did not end by itself.
        """
        stage, message = str(job.status.stage), " ".join((job.status.message or "").split())
        if stage == "COMPLETED":
            return 0
        if stage != "ERROR":
            raise JobError(f"job {job.id}: was {stage.lower()}", remedy="Submit it again.")
        if said:
            return said
        found = re.search(r"exit code:? (\d+)", message, flags=re.IGNORECASE)
        code = int(found[1]) if found else 0
        if code == _KILLED or re.search(r"OOM|out of memory", message, flags=re.IGNORECASE):
            raise JobError(
                f"job {job.id}: was killed, most likely because memory ran out ({message})",
                remedy=f"Give a larger --flavor than {job.flavor}.",
            ).by("machine")
        if "timeout" in message.lower() or "timed out" in message.lower():
            raise JobError(f"job {job.id}: took too long ({message})", remedy="Give a longer --timeout, such as 12h.")
        raise JobError(f"job {job.id}: failed before hfexport ended ({message or 'no reason given'})")
