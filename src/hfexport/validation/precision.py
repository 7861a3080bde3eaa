"""Judge an artifact by the same model in a higher precision.

Two correct float16 computations of a model differ from each other as much as each differs from the exact result,
because they round in another order. So the error of the eager model is the measure: an artifact may differ from the
model in higher precision by at most FACTOR times that error, with a floor of a few roundings. docs/validation.md
derives both. Numpy only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hfexport.errors import UnsupportedError
from hfexport.validation.scan import widened
from hfexport.validation.verdict import Distances, Exact

__all__ = ["FACTOR", "FAR", "FLOOR", "exact_dtype", "largest_of", "measure", "relative_errors", "unfit"]

FACTOR: Final = 4.0
"""Largest ratio of the artifact's error to the eager model's."""

FLOOR: Final[Mapping[str, float]] = {"fp16": 8 * 2.0**-11, "fp32": 8 * 2.0**-24}
"""Relative error that is always allowed, by dtype: eight roundings to nearest of the output's largest value."""

FAR: Final = 0.05
"""Largest relative error of the eager float16 model; models above it are rejected for float16."""

_CHUNK: Final = 1 << 17


def unfit(finding: str) -> UnsupportedError:
    """Return the error for a model that cannot be exported in float16, though it runs in float32."""
    return UnsupportedError(
        f"the model is not fit for float16: {finding}",
        remedy="Export it with dtype: fp32.",
    )


def exact_dtype(dtype: str) -> Exact:
    """Return the precision that outputs of `dtype` (`fp32` or `fp16`) are compared with."""
    return "fp32" if dtype == "fp16" else "fp64"


def relative_errors(
    eager: Mapping[str, NDArray[Any]], exact: Mapping[str, NDArray[Any]], hidden: Mapping[str, NDArray[np.bool_]]
) -> dict[str, float]:
    """Return the eager model's error by output, relative to the output's largest value; infinite if not finite."""
    errors = {}
    for name, wanted in exact.items():
        if wanted.dtype.kind not in "fc" or not wanted.size:
            continue
        distance, largest = _distance(eager[name], wanted, hidden.get(name))
        if not np.isfinite(distance):
            errors[name] = np.inf
        else:
            errors[name] = distance / largest if largest else (np.inf if distance else 0.0)
    return errors


def measure(
    found: NDArray[Any],
    eager: NDArray[Any],
    exact: NDArray[Any],
    hidden: NDArray[np.bool_] | None,
    *,
    dtype: str,
    error: float,
) -> Distances:
    """Measure one output of one probe.

    Args:
        found: the artifact's output.
        eager: the eager model's output in the same dtype.
        exact: the model's output in higher precision.
        hidden: see `hidden_positions`.
        dtype: `fp32` or `fp16`.
        error: largest of `relative_errors` for this output over all probes. A probe with few values may have a smaller
            error by chance.
    """
    artifact, largest = _distance(found, exact, hidden)
    own, _ = _distance(eager, exact, hidden)
    allowed = max(FACTOR * max(own, error * largest), FLOOR[dtype] * largest)
    return Distances(exact_dtype(dtype), artifact, own, allowed)


def _distance(found: NDArray[Any], exact: NDArray[Any], hidden: NDArray[np.bool_] | None) -> tuple[float, float]:
    """Return the largest difference and the largest exact magnitude of unmasked values; infinite if not finite."""
    unread = None if hidden is None else np.broadcast_to(hidden, exact.shape)
    flat_found, flat_exact = found.reshape(-1), exact.reshape(-1)
    distance = largest = 0.0
    for start in range(0, exact.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        a, x = widened(flat_found[part]), widened(flat_exact[part])
        if unread is not None:
            read = ~unread.flat[part]
            a, x = a[read], x[read]
        same = (a == x) | (np.isnan(a) & np.isnan(x))
        with np.errstate(invalid="ignore"):
            difference = np.where(same, 0.0, np.abs(a - x))
        if not np.isfinite(difference).all():
            return np.inf, np.inf
        distance = max(distance, float(difference.max(initial=0.0)))
        largest = max(largest, float(np.abs(x[np.isfinite(x)]).max(initial=0.0)))
    return distance, largest


def largest_of(errors: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Combine the errors of several probes into the largest for each output."""
    combined: dict[str, float] = {}
    for one in errors:
        for name, value in one.items():
            combined[name] = max(combined.get(name, 0.0), value)
    return combined
