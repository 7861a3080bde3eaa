"""Commands for Hugging Face Jobs: `submit` and `jobs`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hfexport import __version__
from hfexport.checkpoint.model_id import is_hub_id
from hfexport.cli.console import Console
from hfexport.errors import HfexportError, InputsError, JobError
from hfexport.run.inputs import Inputs, Parsed, input_fields, parsers

if TYPE_CHECKING:
    from hfexport.hub.jobs import Jobs, JobSpec
    from hfexport.run.fleet.plan import Planned

__all__ = ["IN_A_JOB", "manage", "submit", "submit_fleet"]

IN_A_JOB: Final = "HFEXPORT_JOB"
"""Variable that `submit` sets in a job; the command then reports its exit code in the log."""

PROGRAM: Final = ("/opt/hfexport/bin/python", "-I", "-u", "/opt/hfexport/entrypoint.py")
"""Entry point of the image; a job's command replaces it."""

IMAGE: Final = "ghcr.io/org/hfexport-action"


def submit(parsed: Parsed, console: Console, env: Mapping[str, str]) -> int:
    """Start a job for one model and follow it, or schedule it; return the exit code of its command."""
    problems = job_problems(parsed.inputs, parsed.texts)
    if parsed.own["schedule"] and parsed.own["webhook"]:
        problems.append("--schedule and --webhook contradict each other: give one of them")
    if problems:
        raise InputsError(problems)
    jobs, token = _jobs(parsed, console, env)
    spec = _spec(parsed.inputs, parsed.texts, parsed.own, token, env)
    if parsed.own["schedule"]:
        schedule = jobs.schedule(spec, parsed.own["schedule"])
        console.note(f"scheduled {parsed.own['schedule']}: {schedule}")
        console.data(schedule)
        return 0
    started = jobs.start(spec)
    console.note(f"job {started.id}: {started.url}")
    if parsed.own["webhook"]:
        hook = jobs.watch(parsed.inputs.model, started.id, spec.secrets)
        console.note(f"webhook {hook}: runs it again at every change of {parsed.inputs.model}")
    if parsed.own["detach"]:
        console.data(started.id)
        console.note(f"come back to it with: hfexport jobs {started.id}")
        return 0
    return _follow(jobs, started.id, console, cancels=True)


def manage(parsed: Parsed, console: Console, env: Mapping[str, str]) -> int:
    """List the jobs, or follow or cancel one."""
    job_id = parsed.positional
    if parsed.own["cancel"] and not job_id:
        raise InputsError(["--cancel needs the id of a job"])
    jobs, _ = _jobs(parsed, console, env)
    if parsed.own["cancel"]:
        jobs.cancel(job_id)
        console.note(f"job {job_id}: cancelled")
        return 0
    if job_id:
        return _follow(jobs, job_id, console, cancels=False)
    listed = [
        {
            **{"id": job.id, "stage": str(job.status.stage), "flavor": str(job.flavor or "")},
            **{"name": (job.labels or {}).get("name", ""), "created": str(job.created_at or ""), "url": job.url},
        }
        for job in jobs.listed()
    ]
    if "json" in parsed.flags:
        console.data(json.dumps(listed, indent=2))
    elif listed:
        from hfexport.cli.fleet import aligned

        columns = ("id", "stage", "flavor", "name", "created")
        console.data(aligned(columns, [[job[name] for name in columns] for job in listed]))
    console.note(f"{len(listed)} jobs of hfexport in {jobs.namespace}")
    return 0


def submit_fleet(todo: tuple[Planned, ...], parsed: Parsed, console: Console, env: Mapping[str, str]) -> int:
    """Start a job for each model of a plan, and print their ids.

    Raises:
        InputsError: a model cannot be exported by a job; nothing was started.
    """
    problems = [
        f"{one.member.place}: {problem}"
        for one in todo
        for problem in job_problems(one.member.inputs, dict(one.member.texts))
    ]
    if problems:
        raise InputsError(list(dict.fromkeys(problems)))
    if not todo:
        return 0
    jobs, token = _jobs(parsed, console, env)
    failed: HfexportError | None = None
    for one in todo:
        try:
            started = jobs.start(_spec(one.member.inputs, dict(one.member.texts), parsed.own, token, env))
        except JobError as error:
            failed = error
            console.warn(f"{one.member.name}: {error.message}")
            continue
        console.data(f"{started.id}  {one.member.name}  {started.url}")
    if failed is not None:
        return failed.exit_code
    console.note("come back to them with: hfexport jobs")
    return 0


def job_problems(inputs: Inputs, texts: Mapping[str, str]) -> list[str]:
    """Return the reasons why a job on the Hub cannot run with these inputs."""
    problems = []
    if not is_hub_id(inputs.model):
        problems.append(f"model {inputs.model!r} is not on the Hub, where the job could read it: give owner/name")
    if not inputs.push_to_hub:
        problems.append("push-to-hub is not given: files that a job writes are deleted when it ends")
    for part in input_fields():
        text = texts.get(part.name, "")
        is_path = part.parser in (parsers.path, parsers.class_reference, parsers.program)
        if text and is_path and part.name not in ("model", "output") and Path(text.split(":")[0]).exists():
            problems.append(f"{part.name} is {text!r}, a file of this machine, which the job does not have")
    return problems


def _spec(
    inputs: Inputs, texts: Mapping[str, str], own: Mapping[str, Any], token: str, env: Mapping[str, str]
) -> JobSpec:
    from hfexport.hub.jobs import JobSpec

    variant = "" if "neuron" in inputs.formats else "-slim"
    image = own["image"] or env.get("HFEXPORT_IMAGE") or f"{IMAGE}:v{__version__}{variant}"
    words = [f"--{name}={text}" for name, text in texts.items() if name != "output"]
    variables = {IN_A_JOB: "1"}
    if re.search(r"@sha256:[0-9a-f]{64}$", image):
        variables["HFEXPORT_IMAGE"] = image
    if env.get("HF_ENDPOINT"):
        variables["HF_ENDPOINT"] = env["HF_ENDPOINT"]
    return JobSpec(
        image,
        [*PROGRAM, "export", *words],
        own["flavor"],
        own["timeout"],
        {"HF_TOKEN": token},
        variables,
        inputs.model,
    )


def _jobs(parsed: Parsed, console: Console, env: Mapping[str, str]) -> tuple[Jobs, str]:
    """Return the jobs of the user's account, and the token."""
    from hfexport.hub.client import Hub
    from hfexport.hub.credentials import reading_token
    from hfexport.hub.jobs import Jobs

    token = reading_token(parsed.inputs.hub_token, env, console.mask)
    if not token:
        raise JobError("there is no token for the Hub", remedy="Give hub-token or HF_TOKEN, or run `hf auth login`.")
    hub = Hub(token, note=console.note, failure=JobError)
    return Jobs(hub, parsed.own["namespace"], console.note), token


def _follow(jobs: Jobs, job_id: str, console: Console, *, cancels: bool) -> int:
    """Show the log of a job to its end; an interrupt cancels the job that this command started."""
    try:
        return jobs.follow(job_id, console.note)
    except KeyboardInterrupt:
        if cancels:
            with suppress(HfexportError):
                jobs.cancel(job_id)
                console.note(f"job {job_id}: cancelled")
        else:
            console.note(f"job {job_id}: still runs; cancel it with: hfexport jobs {job_id} --cancel")
        raise
