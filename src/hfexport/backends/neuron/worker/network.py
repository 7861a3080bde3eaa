"""Remove network access from this process and from all processes that it starts, the compiler included.

The process moves to a network namespace of its own, whose only interface is a loopback. This exists on Linux only, and
a container or distribution may forbid it; then the worker reports so and continues.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
from pathlib import Path

__all__ = ["NONE", "leave_network"]

NONE = "none"

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
"""Flags from linux/sched.h."""
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1
"""Constants from linux/sockios.h and linux/if.h."""


def leave_network() -> str:
    """Move this process to a new network namespace; call it while the process has one thread.

    Users without the privilege to do so also create a user namespace, and keep their user id in it. Root, which many
    containers use, does not: inside the namespace it could no longer read files of other users, such as a checkpoint in
    a workspace.

    Returns:
        `none`, or the reason why network access remains.
    """
    if _only_loopback():
        return NONE
    user, group = os.geteuid(), os.getegid()
    try:
        try:
            _unshare(CLONE_NEWNET)
        except PermissionError:
            if user == 0:
                raise
            _unshare(CLONE_NEWUSER | CLONE_NEWNET)
            _stay(user, group)
    except (OSError, AttributeError) as error:
        return "as outside: {}".format(getattr(error, "strerror", None) or error)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket, contextlib.suppress(OSError):
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    return NONE


def _only_loopback() -> bool:
    """Return whether a parent process already removed the network."""
    try:
        return [name for _, name in socket.if_nameindex()] == ["lo"]
    except OSError:
        return False


def _stay(user: int, group: int) -> None:
    """Map the same user id into a new user namespace. Without the map, files are still written but `whoami` fails."""
    own = Path("/proc/self")
    with contextlib.suppress(OSError):
        (own / "setgroups").write_text("deny", encoding="ascii")
        (own / "uid_map").write_text("{0} {0} 1".format(user), encoding="ascii")
        (own / "gid_map").write_text("{0} {0} 1".format(group), encoding="ascii")


def _unshare(flags: int) -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
