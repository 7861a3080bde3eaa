"""Fork servers: start child processes in milliseconds, by forking from a process that has imported torch.

This is for exporting many models in one session. A fork server imports the modules that one kind of child needs, then
forks a child for each job that arrives on its socket. A child is still a fresh process in a session of its own.
`fork_servers` starts one server for each kind and returns the folder of their sockets. If `HFEXPORT_FORK_SERVERS` names
that folder, `hfexport._internal.workers` uses the servers. Linux only, standard library only.

Each connection stands for one child: the client sends a request, and receives the process id, then the exit code. If
the client closes the connection earlier, the server kills the child, so that no child outlives its client.
"""

from __future__ import annotations

import contextlib
import gc
import hmac
import importlib
import json
import os
import secrets
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

from hfexport._internal.process import collect_rarely, python_command

__all__ = ["FORK_SERVERS", "ISOLATED", "WARM_SERVERS", "Forked", "fork", "fork_servers", "main"]

FORK_SERVERS: Final = "HFEXPORT_FORK_SERVERS"
"""Environment variable with the folder that holds a socket for each kind of child, such as `torch.sock`."""

WARM_SERVERS: Final = "HFEXPORT_WARM_SERVERS"
"""Environment variable with a folder like that of `FORK_SERVERS`, for exporting processes alone, which stay isolated."""

_KEY: Final = "?key="
"""Text between the folder and the key of private servers."""

ISOLATED: Final[Mapping[str, tuple[str, ...]]] = {
    "isolated": (
        *("torch", "numpy", "transformers.modeling_utils", "transformers.models.auto.modeling_auto", "onnx_ir"),
        *("onnxscript", "hfexport.backends.onnx.backend", "hfexport.run.pipeline"),
    )
}
"""The server for exporting processes, which fork from it before they restrict themselves."""

KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "onnx": ("numpy", "onnx", "hfexport.validation.runner"),
    "torch": ("torch", "numpy"),
    "transformers": ("torch", "numpy", "transformers.modeling_utils", "transformers.models.auto.modeling_auto"),
}
"""Modules that each kind of server imports before it forks. Other kinds of children start as new interpreters.

The server for ONNX does not import ONNX Runtime, which starts threads that a fork would lose.
"""


class Forked:
    """A forked child, with the methods of `subprocess.Popen` that wait for it."""

    stdin: IO[bytes] | None = None

    def __init__(self, connection: socket.socket, args: Sequence[str]) -> None:
        self._connection = connection
        self._lines = connection.makefile("rb")
        self.args = list(args)
        self.returncode: int | None = None
        self.pid = int(self._lines.readline())

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; `None` while the child runs."""
        return self._read(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit code.

        Raises:
            subprocess.TimeoutExpired: the child did not exit within `timeout` seconds.
        """
        code = self._read(timeout)
        if code is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return code

    def kill(self) -> None:
        """Kill the child by closing the connection, upon which the server kills it."""
        self._connection.shutdown(socket.SHUT_WR)

    def _read(self, timeout_s: float | None) -> int | None:
        if self.returncode is None and select.select([self._connection], [], [], timeout_s)[0]:
            line = self._lines.readline()
            self.returncode = int(line) if line else -signal.SIGKILL  # the server itself was killed
            self._lines.close()
            self._connection.close()
        return self.returncode


def fork(kind: str, request: Mapping[str, Any], env: Mapping[str, str]) -> Forked | None:
    """Fork a child if a server of this kind runs; return `None` otherwise.

    Args:
        kind: kind of the server, such as `torch`.
        request: `runner`, a module whose `run_job` takes `module` and `job` (a path); `log`, `folder`, `env` of the
            child.
        env: environment that may name the servers' folder.
    """
    folder, _, key = env.get(FORK_SERVERS, "").partition(_KEY)
    path = Path(folder, f"{kind}.sock")
    if not folder or not path.is_socket():
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(str(path))
    connection.sendall(json.dumps({**request, "key": key}).encode() + b"\n")
    return Forked(connection, [request["module"], request["job"]])


@contextlib.contextmanager
def fork_servers(
    env: Mapping[str, str], kinds: Mapping[str, Sequence[str]] = KINDS, *, private: bool = False
) -> Iterator[str]:
    """Run a server of each kind; yield the folder to set `HFEXPORT_FORK_SERVERS` to.

    Args:
        env: complete environment of the servers.
        kinds: names of the servers, with the modules that each imports.
        private: serve only processes that have the yielded text, which then also holds a random key. An isolated
            process could otherwise leave its isolation through the servers.
    """
    key = secrets.token_hex(32) if private else ""
    with tempfile.TemporaryDirectory(prefix="hfexport-fork-") as folder, contextlib.ExitStack() as stack:
        started = []
        for kind, modules in kinds.items():
            command = python_command("hfexport._internal.forkserver", str(Path(folder, f"{kind}.sock")), *modules)
            server = subprocess.Popen(command, env=dict(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            stack.callback(server.wait)
            stack.callback(server.kill)
            assert server.stdin is not None
            server.stdin.write(f"{key}\n".encode())
            with contextlib.suppress(BrokenPipeError):
                server.stdin.flush()
            started.append(server)
        for server in started:
            assert server.stdout is not None
            server.stdout.readline()  # wait until the server listens
        yield f"{folder}{_KEY}{key}" if private else folder


def main(address: str, *modules: str) -> None:
    """Import `modules`, then serve until standard input closes, which happens when the starting process ends.

    The first line of standard input is the key that each request must have; empty if there is none.
    """
    key = _first_line(sys.stdin.fileno())
    collect_rarely()
    for module in modules:
        importlib.import_module(module)
    gc.freeze()  # children do not look through the imported objects, whose memory they share
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # let the kernel reap the handler processes
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
                _handle(connection, key)
            connection.close()


def _first_line(descriptor: int) -> str:
    """Read a line byte by byte, so that nothing after it is taken out of the pipe."""
    line = b""
    while (byte := os.read(descriptor, 1)) not in (b"", b"\n"):
        line += byte
    return line.decode()


def _handle(connection: socket.socket, key: str) -> None:
    """Handle one connection in its own process: fork the child and report its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request = json.loads(connection.makefile("rb").readline())
    if not hmac.compare_digest(str(request.get("key", "")), key):
        os._exit(1)
    child = os.fork()
    if child == 0:
        connection.close()
        _become(request)
    connection.sendall(f"{child}\n".encode())
    ended = os.pidfd_open(child)
    watched: list[Any] = [ended, connection]
    readable, _, _ = select.select(watched, [], [])
    if ended not in readable:  # the client has closed the connection
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(OSError):
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _become(request: Mapping[str, Any]) -> None:
    """Turn this fork into the requested child; does not return."""
    os.setsid()
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["env"])
    tempfile.tempdir = None  # cached by the server, from its own environment
    try:
        importlib.import_module(request["runner"]).run_job(request["module"], Path(request["job"]))
    except BaseException:  # noqa: BLE001  print it, as the interpreter does with uncaught exceptions
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
