"""Takes the network away from this process and from all that it starts, the compiler included.

A namespace of its own has no interface but a loopback, on which nobody else listens. Linux alone has it, and a container
or a distribution may forbid it; then the worker says so, and goes on.
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
"""From linux/sched.h."""
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1
"""From linux/sockios.h and linux/if.h."""


def leave_network() -> str:
    """Move to a network namespace of this process's own; to be called while it has one thread.

    Whoever may not make one makes a user namespace for it, in which it is still the same user. Root does not, as it is
    in many containers: inside it would no longer read what belongs to others, such as a checkpoint in a workspace.

    Returns:
        `none`, or why the network stays.
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
    """Whether a parent process left the network already."""
    try:
        return [name for _, name in socket.if_nameindex()] == ["lo"]
    except OSError:
        return False


def _stay(user: int, group: int) -> None:
    """Be the same user inside a new user namespace; without it, files are written all the same, but `whoami` fails."""
    own = Path("/proc/self")
    with contextlib.suppress(OSError):
        (own / "setgroups").write_text("deny", encoding="ascii")
        (own / "uid_map").write_text("{0} {0} 1".format(user), encoding="ascii")
        (own / "gid_map").write_text("{0} {0} 1".format(group), encoding="ascii")


def _unshare(flags: int) -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
