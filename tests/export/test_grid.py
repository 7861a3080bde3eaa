"""A slice of the grid that `make conformance` runs as a whole: one case of every file of architectures."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.cases import CASES, GUIDE, Case, run
from hfexport.architectures import known_architectures


def _slice() -> list[Case]:
    """The first model type of each file, with the last of its tasks."""
    by_file = {known_architectures()[case.model_type].__module__: case for case in reversed(CASES) if not case.changes}
    chosen = [by_file[name] for name in sorted(by_file)]
    tasks = {case.model_type: case.task for case in CASES if not case.changes}
    return [Case(case.model_type, tasks[case.model_type]) for case in chosen]


@pytest.mark.parametrize("case", _slice(), ids=lambda case: case.name)
def test_case(case: Case, tmp_path: Path) -> None:
    result = run(case, tmp_path)
    assert result["passed"], result["problem"]


def test_a_case_that_cannot_pass_fails(tmp_path: Path) -> None:
    assert not run(Case("bert", "masked-lm"), tmp_path, arguments=("--atol", "1e-12"))["passed"]


def test_the_guides_pairs_are_read() -> None:
    assert len(GUIDE) == 281
    assert ("bert", "masked-lm") in GUIDE
