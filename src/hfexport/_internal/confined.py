"""What a process that runs foreign code may reach: by Landlock and capabilities, as far as the kernel lets it.

Linux and standard library only. https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

__all__ = ["DENIED", "confine", "drop_powers", "guard_memory", "hide_arguments", "secret_places"]

DENIED: Final = "denied"
"""What is said of something that a process cannot reach."""

_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP = 4, 38, 24
_CAPABILITY_VERSION_3 = 0x20080522
_POWERS: Final = {
    **{"CAP_DAC_READ_SEARCH": 2, "CAP_SYS_MODULE": 16, "CAP_SYS_RAWIO": 17, "CAP_SYS_PTRACE": 19, "CAP_SYS_ADMIN": 21},
    **{"CAP_MKNOD": 27, "CAP_PERFMON": 38, "CAP_BPF": 39, "CAP_CHECKPOINT_RESTORE": 40},
}
"""Capabilities by which root gets around what is closed to others, from linux/capability.h."""
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""Numbers of system calls, the same on every architecture."""
_WRITE_FILE, _READ_FILE = 0x2, 0x4
_CHANGES: Final = 0x2 | 0x1FF0 | 0x2000  # files written, made and removed, and moved between folders (ABI 2)
_TRUNCATE, _BIND_AND_CONNECT_TCP, _SCOPES = 0x4000, 0x3, 0x3  # ABI 3, 4 and 6
_OF_FILES: Final = _READ_FILE | _WRITE_FILE | _TRUNCATE
_OLDEST_ABI: Final = 2
"""The first version under which files may be moved between folders."""

_SECRETS_IN_HOME: Final = (
    *(".aws", ".azure", ".config/gcloud", ".config/gh", ".config/git", ".docker", ".git-credentials", ".gnupg"),
    *(".huggingface", ".kube", ".netrc", ".npmrc", ".pypirc", ".ssh", "_netrc"),
    *(".cache/huggingface/token", ".cache/huggingface/stored_tokens"),
)
"""Where programs keep what their users log in with."""


def secret_places(env: Mapping[str, str]) -> tuple[Path, ...]:
    """Return files and folders that hold what a user logs in with: of the Hub, of git, of clouds."""
    homes = {Path(env["HOME"])} if env.get("HOME") else set()
    with contextlib.suppress(ImportError, KeyError):
        import pwd

        homes.add(Path(pwd.getpwuid(os.getuid()).pw_dir))
    places = [home / name for home in homes for name in _SECRETS_IN_HOME]
    caches = [Path(env["HF_HOME"])] if env.get("HF_HOME") else []
    if env.get("XDG_CACHE_HOME"):
        caches.append(Path(env["XDG_CACHE_HOME"], "huggingface"))
    places += [cache / name for cache in caches for name in ("token", "stored_tokens")]
    places += [Path(env[name]) for name in ("HF_TOKEN_PATH", "HF_STORED_TOKENS_PATH", "NETRC") if env.get(name)]
    return tuple(sorted({Path(os.path.realpath(place)) for place in places}))


def confine(hidden: Sequence[Path], writable: Sequence[Path], *, network: bool) -> dict[str, str]:
    """Keep this process, and all that it starts, from files, from other processes and from the network, for good.

    Files can be written only below `writable`, and everything can be read but what is `hidden`. Memory and environment of
    processes outside cannot be read, nor can they be sent signals.

    Args:
        hidden: files and folders, as real paths.
        writable: folders that exist.
        network: leave TCP alone.

    Returns:
        `files`, `processes` and `tcp`: each `denied`, or why it is not.
    """
    drop_powers()
    abi = _call(_CREATE_RULESET, None, 0, 1)
    if abi < _OLDEST_ABI:
        why = f"as outside: the kernel's Landlock is {'not there' if abi <= 0 else 'too old'}"
        return {"files": why, "processes": why, "tcp": why}
    changes = _CHANGES | (_TRUNCATE if abi >= 3 else 0)
    tcp = 0 if network or abi < 4 else _BIND_AND_CONNECT_TCP
    attributes = struct.pack("QQQ", changes | _READ_FILE, tcp, _SCOPES if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = _call(_CREATE_RULESET, attributes, size, 0)
    if ruleset < 0:
        why = f"as outside: {os.strerror(ctypes.get_errno())}"
        return {"files": why, "processes": why, "tcp": why}
    try:
        for path in _all_but(Path("/"), frozenset(hidden)):
            _allow(ruleset, path, _READ_FILE)
        for folder in writable:
            _allow(ruleset, folder, changes | _READ_FILE)
        _allow(ruleset, Path("/dev"), _WRITE_FILE | _READ_FILE | (changes & _TRUNCATE))
        _allow(ruleset, Path("/dev/shm"), changes | _READ_FILE)  # noqa: S108
        _allow(ruleset, Path("/proc/self"), _WRITE_FILE | _READ_FILE | (changes & _TRUNCATE))
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        if _call(_RESTRICT_SELF, ruleset, 0) != 0:
            why = f"as outside: {os.strerror(ctypes.get_errno())}"
            return {"files": why, "processes": why, "tcp": why}
    finally:
        os.close(ruleset)
    reachable = "as outside: it was asked for" if network else "as outside: the kernel's Landlock is too old"
    return {"files": DENIED, "processes": DENIED, "tcp": DENIED if tcp else reachable}


def guard_memory() -> None:
    """Keep other processes of the same user from this one's memory and environment; root's need `drop_powers` for that."""
    _prctl(_PR_SET_DUMPABLE, 0)


def drop_powers() -> None:
    """Give up root's capabilities to look into processes that guard their memory; for good, and for all that is started."""
    for power in _POWERS.values():
        _prctl(_PR_CAPBSET_DROP, power)
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    sets = ctypes.create_string_buffer(24)
    if libc.capget(header, sets) != 0:
        return
    # Effective, permitted and inheritable, first of the capabilities below 32, then of those above.
    masks = [sum(1 << power % 32 for power in _POWERS.values() if power // 32 == word) for word in (0, 1)]
    kept = [value & ~masks[n // 3] for n, value in enumerate(struct.unpack("6I", sets.raw))]
    libc.capset(header, struct.pack("6I", *kept))


def hide_arguments(secrets: Iterable[str]) -> None:
    """Overwrite secrets among the arguments of this process, which every process of the machine can read."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        arguments = Path("/proc/self/cmdline").read_bytes()
    except (OSError, ValueError, IndexError):
        return
    if start == 0 or end - start < len(arguments):
        return
    for secret in secrets:
        content = os.fsencode(secret)
        position = arguments.find(content) if content else -1
        while position >= 0:
            ctypes.memset(start + position, ord("*"), len(content))
            position = arguments.find(content, position + len(content))


def _all_but(folder: Path, hidden: frozenset[Path]) -> Iterator[Path]:
    """The largest parts of a folder that hold nothing `hidden`. Links are left out: what they lead to is found itself."""
    around = {parent for path in hidden for parent in path.parents}
    if folder not in around:
        yield folder
        return
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            path = folder / entry.name
            if path in hidden or entry.is_symlink():
                continue
            if path in around:
                yield from _all_but(path, hidden)
            else:
                yield path


def _allow(ruleset: int, path: Path, rights: int) -> None:
    """Add a rule; of what is not there or not ours to open nothing need be allowed."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        kept = rights if stat.S_ISDIR(os.fstat(descriptor).st_mode) else rights & _OF_FILES
        _call(_ADD_RULE, ruleset, 1, struct.pack("=Qi", kept, descriptor), 0)
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: int | bytes | None) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    try:
        return int(libc.syscall(ctypes.c_long(number), *wide))
    except AttributeError:
        return -1


def _prctl(option: int, value: int) -> None:
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
