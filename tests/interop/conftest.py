"""Exports that tests of several consumers share, made once a session in children of a fork server."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from hfexport._internal.forkserver import FORK_SERVERS, fork_servers
from hfexport._internal.workers import child_environment
from interop.made import Made, make


@pytest.fixture(scope="session", autouse=True)
def _fork_servers() -> Iterator[None]:
    with fork_servers(child_environment(os.environ)) as folder:
        os.environ[FORK_SERVERS] = folder
        yield
        del os.environ[FORK_SERVERS]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """Return a function that makes an export of `interop.made.EXPORTS`, once a session."""
    root: Path = tmp_path_factory.mktemp("made")
    return cache(lambda name: make(root / name, name))
