"""Children that start in milliseconds: forked from a process that has imported torch, and made nothing with it.

For whoever exports many models in one go. A fork server imports what one kind of child needs, then forks a child for each
job that comes over its socket; a child is a fresh process in a session of its own all the same. `fork_servers` starts one
for each kind and gives the folder of their sockets; with that folder in `HFEXPORT_FORK_SERVERS`, `hfexport._internal.workers` asks
them first. Linux only, standard library only.

A connection is one child: the request comes, its process id goes back, then its exit code. When the connection closes
before that, the child is killed, so that no child outlives the process that asked for it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

from hfexport._internal.process import python_command

__all__ = ["FORK_SERVERS", "Forked", "fork", "fork_servers", "main"]

FORK_SERVERS: Final = "HFEXPORT_FORK_SERVERS"
"""Environment variable: the folder that holds a socket for each kind of child, such as `torch.sock`."""

KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "torch": ("torch", "numpy"),
    "transformers": ("torch", "numpy", "transformers.modeling_utils", "transformers.models.auto.modeling_auto"),
}
"""What each kind of server imports before it forks; a kind of child that is not here starts afresh."""


class Forked:
    """A forked child, with what `subprocess.Popen` offers to wait for one."""

    stdin: IO[bytes] | None = None

    def __init__(self, connection: socket.socket, args: Sequence[str]) -> None:
        self._connection = connection
        self._lines = connection.makefile("rb")
        self.args = list(args)
        self.returncode: int | None = None
        self.pid = int(self._lines.readline())

    def poll(self) -> int | None:
        """The exit code, negative for a signal; `None` while it runs."""
        return self._read(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit code.

        Raises:
            subprocess.TimeoutExpired: it did not come within `timeout` seconds.
        """
        code = self._read(timeout)
        if code is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return code

    def kill(self) -> None:
        """Kill the child; the server does it when the connection closes."""
        self._connection.shutdown(socket.SHUT_WR)

    def _read(self, timeout_s: float | None) -> int | None:
        if self.returncode is None and select.select([self._connection], [], [], timeout_s)[0]:
            line = self._lines.readline()
            self.returncode = int(line) if line else -signal.SIGKILL  # the server itself was killed
            self._lines.close()
            self._connection.close()
        return self.returncode


def fork(kind: str, request: Mapping[str, Any], env: Mapping[str, str]) -> Forked | None:
    """Have a child forked, if a server of this kind runs; `None` if not.

    Args:
        kind: of the server, such as `torch`.
        request: `runner`, a module whose `run_job` takes `module` and `job` (a path); `log`, `folder`, `env` of the child.
        env: may name the servers' folder.
    """
    path = Path(env.get(FORK_SERVERS, ""), f"{kind}.sock")
    if not env.get(FORK_SERVERS) or not path.is_socket():
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(str(path))
    connection.sendall(json.dumps(request).encode() + b"\n")
    return Forked(connection, [request["module"], request["job"]])


@contextlib.contextmanager
def fork_servers(env: Mapping[str, str], kinds: Mapping[str, Sequence[str]] = KINDS) -> Iterator[str]:
    """Run a server of each kind; gives the folder to set `HFEXPORT_FORK_SERVERS` to.

    Args:
        env: the servers' whole environment.
        kinds: names of the servers, with the modules that each imports.
    """
    with tempfile.TemporaryDirectory(prefix="hfexport-fork-") as folder, contextlib.ExitStack() as stack:
        for kind, modules in kinds.items():
            command = python_command("hfexport._internal.forkserver", str(Path(folder, f"{kind}.sock")), *modules)
            server = subprocess.Popen(command, env=dict(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            stack.callback(server.wait)
            stack.callback(server.kill)
            assert server.stdout is not None
            server.stdout.readline()  # it listens
        yield folder


def main(address: str, *modules: str) -> None:
    """Import `modules`, then serve until standard input closes, which it does when whoever started this ends."""
    for module in modules:
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for handlers
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(address)
        listener.listen()
        print("listening", flush=True)
        while True:
            waiting: list[Any] = [listener, sys.stdin]
            readable, _, _ = select.select(waiting, [], [])
            if sys.stdin in readable:
                return
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _handle(connection)
            connection.close()


def _handle(connection: socket.socket) -> None:
    """One child from its request to its exit code, in a process of its own."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request = json.loads(connection.makefile("rb").readline())
    child = os.fork()
    if child == 0:
        connection.close()
        _become(request)
    connection.sendall(f"{child}\n".encode())
    ended = os.pidfd_open(child)
    watched: list[Any] = [ended, connection]
    readable, _, _ = select.select(watched, [], [])
    if ended not in readable:  # whoever asked has gone, or wants it ended
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(OSError):
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _become(request: Mapping[str, Any]) -> None:
    """Turn this fork into the child that was asked for; does not return."""
    os.setsid()
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["env"])
    try:
        importlib.import_module(request["runner"]).run_job(request["module"], Path(request["job"]))
    except BaseException:  # noqa: BLE001  as the interpreter does with what nobody caught
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
