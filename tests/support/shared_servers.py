"""Fork servers that all processes of a test run share, so that torch is imported for them once.

`python shared_servers.py KIND FOLDER` starts the servers of a kind (`fork` or `warm`), writes their address to FOLDER, and
ends when standard input closes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from hfexport._internal.forkserver import ISOLATED, fork_servers
from hfexport._internal.workers import child_environment

__all__ = ["KINDS", "SHARED", "address", "start_servers"]

SHARED: Final = "HFEXPORT_TESTS_SERVERS"
"""Environment variable with the folder of the addresses."""

KINDS: Final = ("fork", "warm")
"""Kinds of servers: `fork` serves children of exports in the test's process (`FORK_SERVERS`), `warm` exporting processes
that isolate themselves (`WARM_SERVERS`)."""

START_S: Final = 300.0
"""Longest wait for a server, in seconds."""


@contextmanager
def start_servers(*kinds: str) -> Iterator[Path]:
    """Start servers and return at once; yield the folder in which `address` finds them."""
    with tempfile.TemporaryDirectory(prefix="hfexport-tests-") as folder, ExitStack() as stack:
        for kind in kinds:
            process = subprocess.Popen([sys.executable, __file__, kind, folder], stdin=subprocess.PIPE)
            assert process.stdin is not None
            stack.callback(process.wait)
            stack.callback(process.stdin.close)
        yield Path(folder)


def address(kind: str, folder: Path) -> str:
    """Wait for the servers of a kind and return their address.

    Raises:
        TimeoutError: the servers did not start.
    """
    end = time.monotonic() + START_S
    while not (folder / kind).exists():
        if time.monotonic() > end:
            raise TimeoutError(f"the servers {kind!r} of the tests did not start within {START_S:.0f} s")
        time.sleep(0.02)
    return (folder / kind).read_text(encoding="utf-8")


def main(kind: str, folder: Path) -> None:
    """Run the servers of a kind until standard input closes."""
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    env = child_environment({**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))})
    with fork_servers(env) if kind == "fork" else fork_servers(env, ISOLATED, private=True) as found:
        part = folder / f"{kind}.part"
        part.write_text(found, encoding="utf-8")
        part.replace(folder / kind)
        sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
