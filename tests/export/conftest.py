"""Children of these tests are forked from servers that have imported torch: each starts seconds sooner."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from hfexport._internal.forkserver import FORK_SERVERS, WARM_SERVERS


@pytest.fixture(scope="session", autouse=True)
def _fork_servers(forking: str) -> Iterator[None]:
    os.environ[FORK_SERVERS] = forking
    yield
    del os.environ[FORK_SERVERS]


@pytest.fixture
def warm_commands(warm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands in processes of their own fork their exporting process from a server, which saves its import of torch."""
    monkeypatch.delenv(FORK_SERVERS)
    monkeypatch.setenv(WARM_SERVERS, warm)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run code of the user or of a checkpoint in the test's process, which saves the import of torch by two new interpreters."""
    monkeypatch.setattr("hfexport.run.isolated.runs_foreign_code", lambda _: False)
