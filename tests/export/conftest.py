"""Children of these tests are forked from servers that have imported torch: each starts seconds sooner."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from hfexport._internal.forkserver import FORK_SERVERS, fork_servers
from hfexport._internal.workers import child_environment


@pytest.fixture(scope="session", autouse=True)
def _fork_servers() -> Iterator[None]:
    with fork_servers(child_environment(os.environ)) as folder:
        os.environ[FORK_SERVERS] = folder
        yield
        del os.environ[FORK_SERVERS]


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run code of the user or of a checkpoint in the test's process, which saves the import of torch by two new interpreters."""
    monkeypatch.setattr("hfexport.run.isolated.runs_foreign_code", lambda _: False)
