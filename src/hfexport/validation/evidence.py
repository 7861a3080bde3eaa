"""Check that a comparison is conclusive: values vary by more than the tolerance, and enough of them are finite.

If all values of an output are within the tolerance of each other, a constant would pass as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hfexport.export_config import Tolerance
from hfexport.validation.precision import FLOOR
from hfexport.validation.verdict import Check, OutputResult, ProbeResult

__all__ = ["CHECK", "LEAST_FINITE", "unproved"]

CHECK: Final = "values to compare"
"""Name of the check in the manifest."""

LEAST_FINITE: Final = 0.01
"""Least share of finite values among an output's unmasked values, over all probes."""


def unproved(results: Sequence[ProbeResult], tolerance: Tolerance, dtype: str, *, by_precision: bool) -> Check | None:
    """Find outputs of a graph whose comparison is not conclusive.

    A constant output, such as the scale of a model that does not scale, is accepted if the artifact returns the same
    constant within rounding and another output of the graph varies.

    Args:
        results: results of all probes of one graph.
        tolerance: tolerance of the comparison.
        dtype: dtype of the artifact, `fp32` or `fp16`.
        by_precision: float16 was judged by the model in higher precision instead of the tolerance.

    Returns:
        A check that is `not_run`, with the reason; `None` if all outputs are conclusive.
    """
    outputs: dict[str, list[OutputResult]] = {}
    for output in (output for result in results for output in result.outputs if output.values is not None):
        outputs.setdefault(output.name, []).append(output)
    floor = FLOOR[dtype] if by_precision and dtype == "fp16" else None
    problems: list[str] = []
    constant: list[str] = []
    varies = False
    for name, found in outputs.items():
        spread, largest, rounding = _spread(found), _largest(found), FLOOR[dtype] * _largest(found)
        finite, readable = (sum(getattr(one.values, what) for one in found) for what in ("finite", "readable"))
        allowed = _allowed(found, largest, tolerance, floor)
        if finite < LEAST_FINITE * readable:
            problems.append(f"{name}: only {finite} of the model's {readable} values are finite")
        elif spread <= rounding and max(one.max_abs or 0.0 for one in found) <= rounding:
            constant.append(
                f"{name}: the model gives {largest:.3g} everywhere" if spread == 0 else _narrow(name, spread, allowed)
            )
        elif spread < allowed:
            problems.append(_narrow(name, spread, allowed))
        else:
            varies = True
    if not varies:
        problems += constant
    if not problems:
        return None
    return Check(CHECK, "not_run", f"too little to compare: {'; '.join(problems)}")


def _narrow(name: str, spread: float, allowed: float) -> str:
    return (
        f"{name}: over all probes the model's values differ from each other by no more than {spread:.3g}, and the"
        f" tolerance is {allowed:.3g}, so that a constant would pass"
    )


def _spread(found: Sequence[OutputResult]) -> float:
    """Return the range of the model's values; for complex values, that of both parts."""
    values = [one.values for one in found if one.values is not None and one.values.finite]
    if not values:
        return 0.0
    size = 0.0
    for part in range(len(values[0].lowest)):
        size += (max(one.highest[part] for one in values) - min(one.lowest[part] for one in values)) ** 2
    return float(size**0.5)


def _largest(found: Sequence[OutputResult]) -> float:
    return max((one.values.largest for one in found if one.values is not None), default=0.0)


def _allowed(found: Sequence[OutputResult], largest: float, tolerance: Tolerance, floor: float | None) -> float:
    """Return the largest allowed difference of the output, by the tolerance or by the higher precision."""
    if found[0].values is not None and found[0].values.exact:
        return 0.0
    by_distance = max((one.distances.allowed for one in found if one.distances is not None), default=0.0)
    return max(by_distance, tolerance.atol + tolerance.rtol * largest if floor is None else floor * largest)
