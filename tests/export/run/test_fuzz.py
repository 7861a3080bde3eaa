"""Thousands of damaged checkpoints through the whole command line: no traceback, no stale success, bounded time and memory."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

import fuzzed_runs
from hfexport._internal.workers import available_cores

QUICK = ("bert", "roberta", "gpt2")


def _hold(found: dict[str, Any]) -> None:
    assert not found["problems"], f"seed {found['seed']}: {json.dumps(found['problems'][:5], indent=1)}"


def test_a_slice_of_the_inputs(tmp_path: Path) -> None:
    found = fuzzed_runs.fuzz(tmp_path, 0, 40, *QUICK)
    _hold(found)
    assert found["exit_codes"].get("3", 0) > 5
    assert found["exit_codes"].get("0", 0) > 0


@pytest.mark.thorough
def test_many_inputs(tmp_path: Path) -> None:
    """Seeded by the clock, or by HFEXPORT_FUZZ_SEED."""
    seed = int(os.environ.get("HFEXPORT_FUZZ_SEED") or time.time())
    print(f"seed {seed}")
    count = int(os.environ.get("HFEXPORT_FUZZ_INPUTS", "10000"))
    _hold(fuzzed_runs.fuzz(tmp_path, seed, count, jobs=available_cores(os.environ)))


def test_what_several_processes_found_is_added_up() -> None:
    part = {"seed": 1, "count": 2, "architectures": 5, "exit_codes": {"3": 2}, "cpu_s": 1, "problems": []}
    part |= {"longest_s": 1.0, "largest_rss_bytes": 10}
    other = {**part, "exit_codes": {"0": 1, "3": 1}, "longest_s": 9.0, "problems": [{"number": 7}]}
    found = fuzzed_runs.merged([part, other])
    assert found["exit_codes"] == {"0": 1, "3": 3}
    assert (found["count"], found["cpu_s"], found["longest_s"], found["problems"]) == (4, 2, 9.0, [{"number": 7}])


@pytest.mark.parametrize(
    ("code", "log", "verdict", "said"),
    [
        (1, "", "error", "exit code 1"),
        (-9, "", "error", "killed by signal 9"),
        (3, "Traceback (most recent call last):", "error", "a traceback"),
        (3, "", "passed", "but verdict passed"),
        (0, "", "error", "but verdict error"),
        (5, "error: memory ran out", "error", "more memory"),
        (3, "", "error", None),
    ],
)
def test_the_rules_say_no(tmp_path: Path, code: int, log: str, verdict: str, said: str | None) -> None:
    manifest = {"verdict": verdict, "files": [], "artifacts": [], "error": None}
    (tmp_path / "hfexport.json").write_text(json.dumps(manifest))
    problem = fuzzed_runs.problem_of(code, log, tmp_path, 1.0)
    assert problem is None if said is None else said in str(problem)
    (tmp_path / "left").touch()
    if said is None:
        assert "left over" in str(fuzzed_runs.problem_of(code, log, tmp_path, 1.0))
        (tmp_path / "hfexport.json").write_text(json.dumps(fuzzed_runs.EARLIER))
        assert "earlier manifest" in str(fuzzed_runs.problem_of(code, log, tmp_path, 1.0))
