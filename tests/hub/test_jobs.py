"""Hugging Face Jobs with the real client against the local Hub: started, followed, cancelled, scheduled, with faults."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hfexport import __version__
from hfexport._internal.forkserver import WARM_SERVERS
from hfexport.errors import JobError
from hfexport.hub.client import Hub
from hfexport.hub.jobs import EXIT_CODE_LINE, Jobs, JobSpec, said_exit_code
from hub.conftest import TOKEN, Finished
from local_hub.jobs import Job
from local_hub.server import LocalHub

pytestmark = pytest.mark.usefixtures("client")

PUSH = ("submit", "org/tiny", "--push-to-hub")


@pytest.fixture
def account(hub: LocalHub) -> Callable[..., Jobs]:
    def make(note: Callable[[str], None] = lambda _: None) -> Jobs:
        client = Hub(TOKEN, endpoint=hub.url, failure=JobError, note=note, sleep=lambda _: None)
        return Jobs(client, None, note, sleep=lambda _: None)

    return make


SPEC = JobSpec("image", ["hfexport"], "cpu-xl", "6h", {"HF_TOKEN": TOKEN}, {"HFEXPORT_JOB": "1"}, "org/tiny")


def _says(*lines: str, code: int = 0, message: str = "") -> Callable[[Job], tuple[int, str]]:
    def run(job: Job) -> tuple[int, str]:
        for line in lines:
            job.say(line)
        return code, message

    return run


def test_a_job_has_the_token_as_a_secret_only(hub: LocalHub, run: Callable[..., Finished]) -> None:
    hub.runs_job = _says("working", f"token {TOKEN} shown by mistake", f"{EXIT_CODE_LINE}0")
    options = ("--create-pr", "--formats", "onnx", "--opset=18", "--flavor", "cpu-basic", "--timeout", "90m")
    done = run(*PUSH, *options, HF_TOKEN=TOKEN)
    assert done.exit_code == 0, done.said
    (job,) = hub.jobs.values()
    spec = dict(job.spec)
    assert spec.pop("secrets") == {"HF_TOKEN": TOKEN}
    assert TOKEN not in json.dumps(spec)
    assert TOKEN not in done.said
    assert "working" in done.stderr
    assert EXIT_CODE_LINE not in done.stderr
    assert (spec["flavor"], spec["timeoutSeconds"]) == ("cpu-basic", 5400)
    assert spec["dockerImage"] == f"ghcr.io/org/hfexport-action:v{__version__}-slim"
    assert spec["command"][:4] == ["/opt/hfexport/bin/python", "-I", "-u", "/opt/hfexport/entrypoint.py"]
    words = ["--model=org/tiny", "--formats=onnx", "--opset=18", "--push-to-hub=true", "--create-pr=true"]
    assert spec["command"][4:] == ["export", *words]
    given = run(*PUSH, "--hub-token", TOKEN, "--detach", "--image", "mine:1", INPUT_OPSET="20")
    job_id = given.stdout.strip()
    assert given.exit_code == 0, given.said
    assert TOKEN not in given.said
    assert hub.jobs[job_id].spec["secrets"] == {"HF_TOKEN": TOKEN}
    assert hub.jobs[job_id].spec["dockerImage"] == "mine:1"
    assert "--opset=20" in hub.jobs[job_id].spec["command"]


@pytest.mark.parametrize(
    ("code", "message", "lines", "expected", "said"),
    [
        (6, "Job failed with exit code: 6. Reason: Error", (f"{EXIT_CODE_LINE}6",), 6, ""),
        (3, "", ("no such model", f"{EXIT_CODE_LINE}3"), 3, "no such model"),
        (
            137,
            "Job failed with exit code: 137. Reason: OOMKilled",
            ("working",),
            9,
            "Give a larger --flavor than cpu-xl.",
        ),
        (1, "Job timeout", (), 9, "Give a longer --timeout"),
        (1, "Image could not be pulled", (), 9, "failed before hfexport ended (Image could not be pulled)"),
    ],
)
def test_the_exit_code_of_a_job_is_taken_over(
    hub: LocalHub,
    run: Callable[..., Finished],
    code: int,
    message: str,
    lines: tuple[str, ...],
    expected: int,
    said: str,
) -> None:
    hub.runs_job = _says(*lines, code=code, message=message)
    done = run(*PUSH, HF_TOKEN=TOKEN)
    assert done.exit_code == expected, done.said
    assert said in done.stderr


def test_a_busy_hub_and_a_lost_answer_start_one_job(hub: LocalHub, account: Callable[..., Jobs]) -> None:
    hub.fail("run-job", "status", times=2)
    jobs = account()
    jobs.start(SPEC)
    assert len(hub.jobs) == 1
    hub.fail("run-job", "lost")
    started = jobs.start(SPEC)
    assert len(hub.jobs) == 2, "the second job was found by its label and not started again"
    assert started.id in hub.jobs


def test_a_lost_log_is_shown_once_and_whole(hub: LocalHub, account: Callable[..., Jobs]) -> None:
    def slowly(job: Job) -> tuple[int, str]:
        for number in range(4):
            job.say(f"line {number}")
            time.sleep(0.3)
        job.say(f"{EXIT_CODE_LINE}5")
        return 5, "failed"

    hub.runs_job = slowly
    hub.fail("job-logs", "status", times=2)
    hub.fail("job-logs", "truncated", skip=0, times=2)
    notes: list[str] = []
    jobs = account(notes.append)
    shown: list[str] = []
    assert jobs.follow(jobs.start(SPEC).id, shown.append) == 5
    assert shown == [f"line {number}" for number in range(4)]
    assert any("was lost (answered 503); asks for it again" in note for note in notes)


def test_a_log_that_stays_lost_ends_with_a_way_back(hub: LocalHub, account: Callable[..., Jobs]) -> None:
    ended: list[bool] = []

    def waits(job: Job) -> tuple[int, str]:
        while not ended:
            time.sleep(0.05)
        return 0, ""

    hub.runs_job = waits
    hub.fail("job-logs", "status", times=100)
    jobs = account()
    started = jobs.start(SPEC)
    with pytest.raises(JobError) as caught:
        jobs.follow(started.id, lambda _: None)
    ended.append(True)
    assert "the job may still run" in caught.value.message
    assert caught.value.failed_by == "network"
    assert f"hfexport jobs {started.id}" in caught.value.remedy


def test_jobs_are_listed_followed_and_cancelled(hub: LocalHub, run: Callable[..., Finished]) -> None:
    hub.runs_job = _says("its log", f"{EXIT_CODE_LINE}4", code=4)
    job_id = run(*PUSH, "--detach", HF_TOKEN=TOKEN).stdout.strip()
    listed = run("jobs", HF_TOKEN=TOKEN)
    assert listed.exit_code == 0, listed.said
    assert job_id in listed.stdout
    assert "hfexport-org-tiny" in listed.stdout
    assert json.loads(run("jobs", "--json", HF_TOKEN=TOKEN).stdout)[0]["id"] == job_id
    followed = run("jobs", job_id, HF_TOKEN=TOKEN)
    assert (followed.exit_code, "its log" in followed.stderr) == (4, True), followed.said
    running = Job("a" * 24, "org", {"flavor": "cpu-xl"})
    hub.jobs[running.id] = running
    assert run("jobs", running.id, "--cancel", HF_TOKEN=TOKEN).exit_code == 0
    assert running.stage == "CANCELED"
    gone = run("jobs", running.id, HF_TOKEN=TOKEN)
    assert (gone.exit_code, "was canceled" in gone.stderr) == (9, True), gone.said
    assert run("jobs", "b" * 24, HF_TOKEN=TOKEN).exit_code == 9
    assert run("jobs", "--cancel", HF_TOKEN=TOKEN).exit_code == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_cancels_the_job(
    hub: LocalHub, environment: dict[str, str], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    def waits(job: Job) -> tuple[int, str]:
        job.say("working")
        while not job.ended:
            time.sleep(0.05)
        return 0, ""

    hub.runs_job = waits
    started = subprocess.Popen(
        [sys.executable, "-m", "hfexport", *PUSH],
        cwd=tmp_path,
        env={**environment, "HF_TOKEN": TOKEN},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stderr is not None
    while "working" not in (line := started.stderr.readline()):
        assert line, "it ended"
    started.send_signal(number)
    assert started.wait(60) == code
    assert [job.stage for job in hub.jobs.values()] == ["CANCELED"]


def test_a_schedule_and_a_webhook_are_made_once(hub: LocalHub, run: Callable[..., Finished]) -> None:
    first = run(*PUSH, "--schedule", "@daily", HF_TOKEN=TOKEN)
    assert first.exit_code == 0, first.said
    assert run(*PUSH, "--schedule", "@daily", HF_TOKEN=TOKEN).stdout == first.stdout
    (schedule,) = hub.schedules
    assert (schedule["schedule"], schedule["concurrency"]) == ("@daily", False)
    assert schedule["jobSpec"].pop("secrets") == {"HF_TOKEN": TOKEN}
    assert TOKEN not in json.dumps(schedule)
    assert hub.jobs == {}, "a schedule starts later"
    for _ in range(2):
        done = run(*PUSH, "--webhook", HF_TOKEN=TOKEN)
        assert done.exit_code == 0, done.said
    (hook,) = hub.webhooks
    assert hook["watched"] == [{"type": "model", "name": "org/tiny"}]
    assert (hook["domains"], hook["secrets"]) == (["repo"], {"HF_TOKEN": TOKEN})


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        (("submit", "org/tiny"), 2, "push-to-hub is not given: files that a job writes are deleted when it ends"),
        (("submit", "here", "--push-to-hub", "org/x"), 2, "model 'here' is not on the Hub"),
        ((*PUSH, "--base-model", "here"), 2, "base-model is 'here', a file of this machine"),
        ((*PUSH, "--timeout", "6"), 2, "must be a number with a unit"),
        ((*PUSH, "--schedule", "daily"), 2, "must be one of @hourly, @daily"),
        ((*PUSH, "--schedule", "@daily", "--webhook"), 2, "contradict each other"),
        ((*PUSH, "--flavour", "x"), 2, "did you mean --flavor?"),
        ((*PUSH, "--namespace", "others"), 9, "may not do this"),
    ],
)
def test_what_no_job_can_do_is_said_before_it_starts(
    hub: LocalHub, run: Callable[..., Finished], tmp_path: Path, words: tuple[str, ...], code: int, problem: str
) -> None:
    (tmp_path / "work" / "here").mkdir(parents=True)
    done = run(*words, HF_TOKEN=TOKEN)
    assert (done.exit_code, problem in done.stderr) == (code, True), done.said
    assert hub.jobs == {}


def test_without_a_token_nothing_is_submitted(hub: LocalHub, run: Callable[..., Finished]) -> None:
    done = run(*PUSH)
    assert (done.exit_code, "there is no token for the Hub" in done.stderr) == (9, True), done.said
    assert run(*PUSH, HF_TOKEN="hf_unknown").exit_code == 9


def test_a_plan_is_submitted(
    hub: LocalHub, run: Callable[..., Finished], files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.add("org/other", files)
    (tmp_path / "work").mkdir()
    text = "defaults: {push-to-hub: true, formats: onnx}\nmodels:\n- model: org/tiny\n- model: org/other\n"
    (tmp_path / "work" / "models.yaml").write_text(text, encoding="utf-8")
    done = run("plan", "models.yaml", "--submit", "--flavor", "cpu-basic", HF_TOKEN=TOKEN)
    assert done.exit_code == 0, done.said
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        [job_id, job.spec["command"][5].removeprefix("--model=")] for job_id, job in hub.jobs.items()
    ]
    assert {job.spec["flavor"] for job in hub.jobs.values()} == {"cpu-basic"}
    (tmp_path / "work" / "models.yaml").write_text("models:\n- model: org/tiny\n", encoding="utf-8")
    refused = run("plan", "models.yaml", "--submit", HF_TOKEN=TOKEN)
    assert (refused.exit_code, len(hub.jobs)) == (2, 2)
    assert "models.yaml:2: push-to-hub is not given" in refused.stderr


def test_only_the_last_line_of_its_own_counts_as_an_exit_code() -> None:
    assert said_exit_code(f"{EXIT_CODE_LINE}6\n") == 6
    assert said_exit_code(f"x {EXIT_CODE_LINE}6") is None
    assert said_exit_code("ended with exit code 6") is None


@pytest.fixture
def as_the_image_does(hub: LocalHub, environment: dict[str, str], tmp_path: Path) -> Iterator[None]:
    """Jobs run this hfexport, with nothing but their own variables and secrets."""

    def work(job: Job) -> tuple[int, str]:
        folder = tmp_path / f"job-{job.id}"
        folder.mkdir()
        variables = {**job.spec["environment"], **job.spec["secrets"], "HOME": str(folder), "HF_HUB_DISABLE_XET": "1"}
        kept = {name: environment[name] for name in ("PATH", "PYTHONPATH", WARM_SERVERS)}
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "hfexport", *job.spec["command"][4:]],
            cwd=folder,
            env={**kept, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            job.say(line.rstrip("\n"))
        return process.wait(), f"Job failed with exit code: {process.returncode}. Reason: Error"

    hub.runs_job = work
    return


@pytest.mark.usefixtures("as_the_image_does")
def test_a_job_exports_and_publishes_and_then_has_nothing_to_do(hub: LocalHub, run: Callable[..., Finished]) -> None:
    quick = ("--formats", "torchscript", "--validate", "off", "--publish-unvalidated")
    done = run(*PUSH, *quick, HF_TOKEN=TOKEN)
    assert done.exit_code == 0, done.said
    assert "torchscript/model.pt" in hub.repositories["org/tiny"].files()
    assert TOKEN not in done.said
    assert all(TOKEN not in line for job in hub.jobs.values() for line in job.lines)
    again = run(*PUSH, *quick, HF_TOKEN=TOKEN)
    assert (again.exit_code, "nothing to do" in again.stderr) == (0, True), again.said
    failed = run("submit", "org/none", "--push-to-hub", "org/tiny", *quick[2:], HF_TOKEN=TOKEN)
    assert failed.exit_code == 3, failed.said
    assert os.sep not in failed.stdout
