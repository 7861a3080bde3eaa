"""The Neuron worker's network is taken away, or it says why not."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hfexport.backends.neuron.worker import network

PROGRAM = """
import encodings.idna, os, socket, sys
sys.path.insert(0, sys.argv[1])
from worker.network import leave_network
if sys.argv[3] == "nobody":
    os.setgid(65534), os.setuid(65534)
print(leave_network() if sys.argv[4] == "apart" else "not asked")
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[2])), timeout=10)
    print("connected")
except OSError:
    print("nobody there")
here = socket.create_server(("127.0.0.1", 0))
socket.create_connection(here.getsockname(), timeout=10)
print(os.geteuid())
"""


def tried(user: str, how: str) -> list[str]:
    """What a process that wants to connect to a server of ours says, line by line."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        arguments = [str(Path(network.__file__).parent.parent), str(server.getsockname()[1]), user, how]
        result = subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True, timeout=60
        )
    return result.stdout.splitlines()


def test_a_process_reaches_itself_and_nobody_else() -> None:
    said, reached, user = tried("oneself", "apart")
    assert (reached == "nobody there") == (said == "none")
    assert said == "none" or said.startswith("as outside: ")
    assert int(user) == os.geteuid()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_somebody_without_rights_does_too() -> None:
    said, reached, user = tried("nobody", "apart")
    assert (reached == "nobody there") == (said == "none")
    assert user == "65534"


def test_without_it_a_process_reaches_others() -> None:
    assert tried("oneself", "as outside")[1] == "connected"


def test_a_kernel_that_forbids_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(flags: int) -> None:
        del flags
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(network, "_unshare", forbid)
    assert network.leave_network() == "as outside: No space left on device"


def test_root_keeps_its_rights_over_files_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user namespace would take them, and with them a checkpoint that only its owner may read."""
    asked: list[int] = []

    def forbid(flags: int) -> None:
        asked.append(flags)
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(network, "_unshare", forbid)
    for user, namespaces in (
        (0, [network.CLONE_NEWNET]),
        (1000, [network.CLONE_NEWNET, network.CLONE_NEWUSER | network.CLONE_NEWNET]),
    ):
        asked.clear()
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        assert network.leave_network() == "as outside: Operation not permitted"
        assert asked == namespaces
