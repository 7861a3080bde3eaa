"""Settings of all tests."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from hfexport._internal.process import collect_rarely
from shared_servers import KINDS, SHARED, address, start_servers

# Tests run side by side, and their models are tiny: more threads would only wait for each other. Set before torch and
# ONNX Runtime are imported, here and in child processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that starts the tests in the background has SIGINT ignored, which processes that tests interrupt would inherit.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The modules that tests import have millions of objects that live to the end.
collect_rarely()


def pytest_configure(config: pytest.Config) -> None:
    """Start the fork servers of a run with several processes in the one that outlives the others."""
    runs_others = bool(config.getoption("numprocesses", None)) and not hasattr(config, "workerinput")
    if runs_others and any({"export", "hub"} & set(Path(argument).parts) for argument in config.args):
        stack = ExitStack()
        os.environ[SHARED] = str(stack.enter_context(start_servers(*KINDS)))
        config.add_cleanup(stack.close)


def _address(kind: str) -> Iterator[str]:
    if SHARED in os.environ:
        yield address(kind, Path(os.environ[SHARED]))
        return
    with start_servers(kind) as folder:
        yield address(kind, folder)


@pytest.fixture(scope="session")
def forking() -> Iterator[str]:
    """Value of `FORK_SERVERS`: servers that have imported torch, for children of the test's process."""
    yield from _address("fork")


@pytest.fixture(scope="session")
def warm() -> Iterator[str]:
    """Value of `WARM_SERVERS`: servers that have imported torch, for exporting processes of commands."""
    yield from _address("warm")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long tests in every process of a parallel run, so that none has to wait for another at the end."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if processes > 1:
        items[:] = _dealt(items, processes)


def _dealt(items: Sequence[pytest.Item], processes: int) -> list[pytest.Item]:
    """Give each process the same share of modules with exports, and then short tests, which others take over at the end.

    pytest-xdist gives each process an equal number of tests that follow one another.
    """
    short: list[pytest.Item] = []
    modules: dict[Path, list[pytest.Item]] = {}
    for item in items:
        (short if "unit" in item.path.parts else modules.setdefault(item.path, [])).append(item)
    shares: list[list[pytest.Item]] = [[] for _ in range(processes)]
    for number, module in enumerate(modules.values()):
        shares[number % processes] += module
    order: list[pytest.Item] = []
    for number, share in enumerate(shares):
        size = (len(items) - len(order)) // (processes - number)
        missing = max(0, size - len(share))
        order += [*share, *short[:missing]]
        del short[:missing]
    return [*order, *short]


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Keep the garbage collector off what was imported, and pytest from recording the traces of torch.

    pytest adds its handlers to loggers that do not propagate. With a handler torch writes thousands of records an export.
    """
    logging.getLogger("torch.__trace").propagate = True
    gc.collect()
    gc.freeze()
