"""Plan a fleet: find what has to be exported, and pack it into the jobs of a workflow's matrix."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hfexport.errors import InputsError
from hfexport.hub.client import Hub
from hfexport.hub.credentials import reading_token
from hfexport.run.fleet.current import Found, find
from hfexport.run.fleet.expand import Member, expand
from hfexport.run.fleet.file import read_fleet
from hfexport.run.inputs import Inputs
from hfexport.run.observer import Observer

__all__ = ["MAX_JOBS", "Plan", "Planned", "fleet_file", "make_plan", "matrix"]

MAX_JOBS: Final = 256
"""Largest number of jobs in a matrix
(https://docs.github.com/actions/reference/limits#job-execution-limits-for-github-actions)."""

MAX_OUTPUT_BYTES: Final = 2**20
"""Largest size of the outputs of a job."""

FIXED_BYTES: Final = 2**28
"""Weights whose export takes as long as everything that does not depend on them; spreads small models over jobs."""

LOOKUPS: Final = 8
"""Models that are looked up at the same time."""


@dataclass(frozen=True)
class Planned:
    """One model of a fleet, and the state of its checkpoint and export."""

    member: Member
    found: Found

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values for the user."""
        return {
            "name": self.member.name,
            "weights_bytes": self.found.weights_bytes,
            "commit": self.found.commit or None,
            "current": self.found.current or None,
            "problem": self.found.problem or None,
            "inputs": dict(self.member.texts),
        }


@dataclass(frozen=True)
class Plan:
    """Models of a fleet that would be exported, and those that would not.

    Attributes:
        todo: models to export, largest weights first.
        current: models whose export is there and current.
    """

    todo: tuple[Planned, ...]
    current: tuple[Planned, ...]


def make_plan(file: Path, inputs: Inputs, observer: Observer, env: Mapping[str, str]) -> Plan:
    """Read a fleet file, and look at every model and its export.

    A model that cannot be looked at stays in the plan: its own run says why.

    Args:
        file: fleet file.
        inputs: inputs of the command line: the token, and the folder for the exports.
        observer: receives notes.
        env: environment variables.

    Raises:
        InputsError: lists all problems of the file.
        HfexportError: a collection or a search cannot be read.
    """
    groups = read_fleet(file)
    hub = _shared_hub(inputs, observer, env)
    members = expand(groups, inputs.output, hub, observer.note)
    with ThreadPoolExecutor(LOOKUPS) as pool:
        found = list(pool.map(lambda member: find(member.inputs, observer, env, hub), members))
    planned = [Planned(member, one) for member, one in zip(members, found, strict=True)]
    for one in planned:
        if one.found.current:
            observer.note(f"{one.member.name}: nothing to do, {one.found.current} is current")
        elif one.found.problem:
            observer.warn(f"{one.member.place}: {one.member.name}: {one.found.problem}")
    todo = sorted(
        (one for one in planned if not one.found.current), key=lambda one: (-one.found.weights_bytes, one.member.name)
    )
    return Plan(tuple(todo), tuple(one for one in planned if one.found.current))


def _shared_hub(inputs: Inputs, observer: Observer, env: Mapping[str, str]) -> Callable[[], Hub]:
    """Return a function that makes a client with the user's token at its first call."""
    made: list[Hub] = []

    def hub() -> Hub:
        if not made:
            made.append(Hub(reading_token(inputs.hub_token, env, observer.mask), note=observer.note))
        return made[0]

    return hub


def fleet_file(members: Sequence[Member]) -> str:
    """Return a fleet file in JSON, which is YAML, with exactly these models."""
    return json.dumps({"models": [dict(member.texts) for member in members]}, ensure_ascii=False)


def matrix(todo: Sequence[Planned], limit: int = MAX_JOBS) -> dict[str, Any]:
    """Pack models into at most `limit` jobs of about equal size; return the value of a job's `strategy.matrix`.

    Each job has a `name`, the content of its own fleet file (`models`) and the size of its weights (`weights_bytes`).
    The longest job is first, and so are the largest weights in a job.

    Raises:
        InputsError: the matrix is larger than a workflow allows.
    """
    jobs: list[list[Planned]] = [[] for _ in range(min(limit, len(todo)))]
    loads = [(0, number) for number in range(len(jobs))]
    for one in sorted(todo, key=lambda one: -one.found.weights_bytes):
        load, number = heapq.heappop(loads)
        jobs[number].append(one)
        heapq.heappush(loads, (load + one.found.weights_bytes + FIXED_BYTES, number))
    entries = [
        {
            "name": job[0].member.name + (f" and {len(job) - 1} more" if len(job) > 1 else ""),
            "models": fleet_file([one.member for one in job]),
            "weights_bytes": sum(one.found.weights_bytes for one in job),
        }
        for job in jobs
    ]
    found = {"include": sorted(entries, key=lambda entry: -int(str(entry["weights_bytes"])))}
    size = len(json.dumps(found).encode())
    if size > MAX_OUTPUT_BYTES:
        raise InputsError(
            [f"the matrix of {len(todo)} models has {size} bytes, more than a workflow takes: split the file"]
        )
    return found
