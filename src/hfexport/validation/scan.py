"""Scan two arrays for differences in parts: integers exactly, complex values by magnitude. Numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfexport.export_config import Tolerance

__all__ = ["Scan", "for_dtype", "scan", "widened"]

_CHUNK = 1 << 17
"""Elements compared at once: 1 MB in double precision, which fits into the processor's cache."""


@dataclass
class Scan:
    """Intermediate result of a scan; positions are indices into the flat arrays.

    Attributes:
        max_abs: largest absolute difference.
        max_rel: largest difference relative to the model's value, if that is not 0.
        max_share: largest difference relative to the allowed difference of the element.
        worst_at: element that comes closest to its tolerance, or exceeds it most.
        worst_excess: amount by which it exceeds its tolerance; negative if it is within.
        beyond: number of elements outside their tolerance.
        largest: largest magnitude of the model's values.
        not_finite_at: first element that is not finite and not the same in both.
        lowest: lowest finite value of the model, as real and imaginary part.
        highest: highest finite value, likewise.
        finite: number of the model's finite, unmasked values.
        readable: number of unmasked values.
    """

    max_abs: float = 0.0
    max_rel: float = 0.0
    max_share: float = 0.0
    worst_at: int = 0
    worst_excess: float = -np.inf
    beyond: int = 0
    largest: float = 0.0
    not_finite_at: int | None = None
    lowest: tuple[float, float] = (np.inf, np.inf)
    highest: tuple[float, float] = (-np.inf, -np.inf)
    finite: int = 0
    readable: int = 0

    @property
    def any_finite(self) -> bool:
        """Return whether any unmasked value of the model is finite."""
        return self.finite > 0

    def see(self, values: NDArray[Any]) -> None:
        """Update the range with some of the model's values, all finite."""
        if values.size:
            parts = (values.real, values.imag) if values.dtype.kind == "c" else (values,)
            low, high = [float(part.min()) for part in parts], [float(part.max()) for part in parts]
            zero = [0.0] * (2 - len(parts))
            self.lowest = (min(self.lowest[0], low[0]), min(self.lowest[1], *low[1:], *zero))
            self.highest = (max(self.highest[0], high[0]), max(self.highest[1], *high[1:], *zero))
        self.finite += values.size


def for_dtype(tolerance: Tolerance, dtype: np.dtype[Any]) -> Tolerance:
    """Return the tolerance for values of `dtype`: none for integers and booleans."""
    return tolerance if dtype.kind in "fc" else Tolerance(0.0, 0.0)


def widened(array: NDArray[Any]) -> NDArray[Any]:
    """Return values in the widest dtype of their kind: float64, complex128, uint64 or int64."""
    if array.dtype.kind == "c":
        return array.astype(np.complex128)
    if array.dtype.kind == "f":
        return array.astype(np.float64)
    return array.astype(np.uint64 if array.dtype == np.uint64 else np.int64)


def scan(
    found: NDArray[Any], wanted: NDArray[Any], tolerance: Tolerance, hidden: NDArray[np.bool_] | None = None
) -> Scan:
    """Compare two flat arrays of one dtype and size.

    Args:
        found: the artifact's values.
        wanted: the model's values.
        tolerance: allowed difference; see `for_dtype`.
        hidden: true for masked values, which only have to be finite.
    """
    seen = Scan()
    for start in range(0, found.size, _CHUNK):
        a, r = widened(found[start : start + _CHUNK]), widened(wanted[start : start + _CHUNK])
        unread: NDArray[np.bool_] | None = None if hidden is None else hidden.flat[start : start + _CHUNK]
        if unread is not None:
            # Masked values count as equal unless they are not finite: 0 times NaN is NaN.
            settled = unread & (np.isfinite(a) | ~np.isfinite(r))
            a, r = _zeroed(a, settled), _zeroed(r, settled)
        readable = r if unread is None else r[~unread]
        seen.readable += readable.size
        seen.see(readable[np.isfinite(readable)])
        finite = np.isfinite(a) & np.isfinite(r)
        if not finite.all():
            differs = ~finite & ~(_same(a.real, r.real) & _same(a.imag, r.imag))
            if seen.not_finite_at is None and differs.any():
                seen.not_finite_at = start + int(differs.argmax())
            a, r = _zeroed(a, ~finite), _zeroed(r, ~finite)
        _scan_finite(a, r, tolerance, start, seen)
    return seen


def _zeroed(values: NDArray[Any], where: NDArray[np.bool_]) -> NDArray[Any]:
    return np.where(where, values.dtype.type(0), values)


def _same(a: NDArray[Any], r: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray((a == r) | (np.isnan(a) & np.isnan(r)))


def _difference(a: NDArray[Any], r: NDArray[Any]) -> NDArray[np.float64]:
    """Return `|a - r|`. Integers are subtracted before rounding, so that a difference of 1 is not lost."""
    if a.dtype.kind not in "iu":
        return np.asarray(np.abs(a - r))
    # Modulo 2^64, the larger less the smaller is correct in uint64 for all signs.
    larger, smaller = np.maximum(a, r).astype(np.uint64), np.minimum(a, r).astype(np.uint64)
    distance: NDArray[np.float64] = (larger - smaller).astype(np.float64)
    return distance


def _scan_finite(a: NDArray[Any], r: NDArray[Any], tolerance: Tolerance, start: int, seen: Scan) -> None:
    difference = _difference(a, r)
    magnitude = np.abs(r if r.dtype.kind in "fc" else r.astype(np.float64))
    seen.max_abs = max(seen.max_abs, float(difference.max()))
    seen.largest = max(seen.largest, float(magnitude.max()))
    relative = np.divide(difference, magnitude, out=np.zeros_like(difference), where=magnitude > 0)
    seen.max_rel = max(seen.max_rel, float(relative.max()))
    # From here on, `magnitude` is the allowed difference, and `difference` the excess over it.
    magnitude *= tolerance.rtol
    magnitude += tolerance.atol
    share = np.divide(difference, magnitude, out=np.where(difference > 0, np.inf, 0.0), where=magnitude > 0)
    seen.max_share = max(seen.max_share, float(share.max()))
    difference -= magnitude
    at = int(difference.argmax())
    if difference[at] > 0:
        seen.beyond += int(np.count_nonzero(difference > 0))
    if difference[at] > seen.worst_excess:
        seen.worst_excess, seen.worst_at = float(difference[at]), start + at
