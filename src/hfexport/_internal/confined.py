"""Restrict what a process that runs untrusted code can reach, with Landlock and capabilities if the kernel has them.

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
"""Reported for a kind of access that a process does not have."""

_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP = 4, 38, 24
_CAPABILITY_VERSION_3 = 0x20080522
_POWERS: Final = {
    **{"CAP_DAC_READ_SEARCH": 2, "CAP_SYS_MODULE": 16, "CAP_SYS_RAWIO": 17, "CAP_SYS_PTRACE": 19, "CAP_SYS_ADMIN": 21},
    **{"CAP_MKNOD": 27, "CAP_PERFMON": 38, "CAP_BPF": 39, "CAP_CHECKPOINT_RESTORE": 40},
}
"""Capabilities by which root bypasses access checks, from linux/capability.h."""
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""System call numbers, the same on every architecture."""
_WRITE_FILE, _READ_FILE = 0x2, 0x4
_CHANGES: Final = 0x2 | 0x1FF0 | 0x2000  # files written, made and removed, and moved between folders (ABI 2)
_TRUNCATE, _BIND_AND_CONNECT_TCP, _SCOPES = 0x4000, 0x3, 0x3  # ABI 3, 4 and 6
_OF_FILES: Final = _READ_FILE | _WRITE_FILE | _TRUNCATE
_OLDEST_ABI: Final = 2
"""First Landlock version that allows moving files between folders."""

_SECRETS_IN_HOME: Final = (
    *(".aws", ".azure", ".config/gcloud", ".config/gh", ".config/git", ".docker", ".git-credentials", ".gnupg"),
    *(".huggingface", ".kube", ".netrc", ".npmrc", ".pypirc", ".ssh", "_netrc"),
    *(".cache/huggingface/token", ".cache/huggingface/stored_tokens"),
)
"""Paths in the home folder where programs keep credentials."""


def secret_places(env: Mapping[str, str]) -> tuple[Path, ...]:
    """Return files and folders that hold credentials: of the Hub, git and clouds."""
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
    """Restrict files, other processes and the network for this process and its children, permanently.

    Files can be written only below `writable`. Everything except `hidden` can be read. Memory and environment of
    outside processes cannot be read, and no signals can be sent to them.

    Args:
        hidden: real paths of files and folders that must not be read.
        writable: existing folders that may be written.
        network: leave TCP unrestricted.

    Returns:
        `files`, `processes` and `tcp`: for each `denied`, or the reason why it is not.
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
    reachable = "as outside: the input allow-network" if network else "as outside: the kernel's Landlock is too old"
    return {"files": DENIED, "processes": DENIED, "tcp": DENIED if tcp else reachable}


def guard_memory() -> None:
    """Protect this process's memory from other processes of the same user; for root also call `drop_powers`."""
    _prctl(_PR_SET_DUMPABLE, 0)


def drop_powers() -> None:
    """Drop root's capabilities to inspect other processes, permanently, for this process and its children."""
    for power in _POWERS.values():
        _prctl(_PR_CAPBSET_DROP, power)
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    sets = ctypes.create_string_buffer(24)
    if libc.capget(header, sets) != 0:
        return
    # Effective, permitted and inheritable: first for the capabilities below 32, then for those above.
    masks = [sum(1 << power % 32 for power in _POWERS.values() if power // 32 == word) for word in (0, 1)]
    kept = [value & ~masks[n // 3] for n, value in enumerate(struct.unpack("6I", sets.raw))]
    libc.capset(header, struct.pack("6I", *kept))


def hide_arguments(secrets: Iterable[str]) -> None:
    """Overwrite secrets in this process's arguments, which every process on the machine can read."""
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
    """Yield the largest subtrees of a folder without `hidden` paths; links are skipped, their targets come too."""
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
    """Add a rule for a path; skip a path that is missing or cannot be opened."""
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
