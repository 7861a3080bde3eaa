"""Tolerance of a comparison, and limits of memory, time and file size of an artifact's process."""

from __future__ import annotations

from hfexport._internal.process import Limits
from hfexport.export_config import ExportConfig, Tolerance

__all__ = ["resolve_tolerance", "runner_limits"]

MEMORY_BYTES = 2**33
MEMORY_SHARE = 6
"""Memory limit of an untrusted artifact, in addition to a multiple of its weights' size."""
FILE_BYTES = 2**32
"""Size limit of a file that it writes, in addition to its weights' size; outputs are written to files."""


def resolve_tolerance(config: ExportConfig, dtype: str, atol: float | None, rtol: float | None) -> Tolerance:
    """Return the tolerance for an artifact. If only `atol` is given, `rtol` is 0."""
    default = config.tolerance(dtype)
    if atol is None:
        return default if rtol is None else Tolerance(default.atol, rtol)
    return Tolerance(atol, 0.0 if rtol is None else rtol)


def runner_limits(weight_bytes: int, timeout_s: float, threads: int) -> Limits:
    """Return limits for running an untrusted artifact: several times its weights' size, plus a constant."""
    return Limits(
        MEMORY_BYTES + MEMORY_SHARE * weight_bytes, int(timeout_s * max(1, threads)), FILE_BYTES + weight_bytes
    )
