"""Helpers for arrays, hashes, errors and time limits in the worker's jobs and answers."""

from __future__ import annotations

import contextlib
import hashlib
import signal
import subprocess
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

from . import Failure

MODEL_FAILURES = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError),
    *(OSError, RuntimeError, TypeError, ValueError),
)
"""Exceptions that the code of a model or of the SDK may raise."""


@contextlib.contextmanager
def unless(code: str, what: str) -> Iterator[None]:
    """Convert exceptions that a model's own code may raise to a `Failure` with this code."""
    try:
        yield
    except MODEL_FAILURES as error:
        raise Failure(code, "{}: {}: {}".format(what, type(error).__name__, first_line(error))) from error


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise `subprocess.TimeoutExpired` when the block takes too long; torch_neuronx has no time limit of its own."""

    def expire(*_: Any) -> None:
        raise subprocess.TimeoutExpired("the compiler", seconds)

    signal.signal(signal.SIGALRM, expire)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def tensors_of(arrays: Mapping[str, Any], prefix: str, names: Sequence[str]) -> tuple[Any, ...]:
    """Return the tensors `{prefix}/{name}` of inputs.npz, in the order of `names`."""
    import torch

    try:
        return tuple(torch.from_numpy(arrays["{}/{}".format(prefix, name)]) for name in names)
    except KeyError as error:
        raise Failure("bad_job", "inputs.npz lacks {}".format(error)) from None


def read_arrays(path: Path) -> dict[str, Any]:
    """Read the arrays of an .npz file by name."""
    import numpy as np

    with np.load(str(path), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays into an .npz file."""
    import numpy as np

    np.savez(str(path), **arrays)


def file_entry(path: Path) -> dict[str, Any]:
    """Return the name, size and SHA-256 of a file as the answer lists them."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return {"path": path.name, "size_bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def first_line(error: BaseException) -> str:
    """Return the first non-empty line of an error's message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:500] if lines else type(error).__name__
