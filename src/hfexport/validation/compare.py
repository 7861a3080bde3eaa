"""Compares what an artifact answers with what the model answers, element by element.

Numpy only. Arrays may be memory maps larger than memory: they are looked at a part at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfexport.export_config import ExportConfig, Tolerance, axis_size
from hfexport.export_config.probes import Probe
from hfexport.validation.precision import FAR, measure
from hfexport.validation.verdict import ArtifactVerdict, OutputResult, ProbeResult

__all__ = [
    "ArtifactVerdict",
    "OutputResult",
    "ProbeResult",
    "Yardstick",
    "compare_outputs",
    "compare_probe",
    "declared_problem",
]

Arrays = Mapping[str, NDArray[Any]]
Hidden = Mapping[str, NDArray[np.bool_]]

_CHUNK = 1 << 17
"""Elements compared at once: 1 MB in double precision, so that the passes over them stay in the processor's cache."""


def declared_problem(config: ExportConfig, probe: Probe, reference: Arrays) -> str:
    """What the model itself gives other than its export config declares; empty if nothing.

    A config that declares too little would have the artifact compared on too little.
    """
    declared = [spec.name for spec in config.outputs]
    if not probe.greedy_steps and list(reference) != declared:
        return f"the model gives {', '.join(reference)}; its export config declares {', '.join(declared)}"
    for spec in config.outputs if not probe.greedy_steps else ():
        shape = reference[spec.name].shape
        wanted = tuple(axis_size(axis, probe.sizes) for axis in spec.axes)
        if shape[: len(wanted)] != wanted:
            axes = ", ".join(str(axis) for axis in spec.axes)
            return f"the model gives {spec.name} as {shape}; its export config declares ({axes}), here {wanted}"
    return ""


@dataclass(frozen=True)
class Yardstick:
    """The model in a higher precision, by which an artifact of a coarser one is judged. See `precision`.

    Attributes:
        answers: of the model in higher precision, by output name.
        errors: by output name, the largest relative error of the eager model over all probes.
        dtype: `fp32` or `fp16`, of the artifact.
    """

    answers: Arrays
    errors: Mapping[str, float]
    dtype: str


def compare_probe(
    probe: Probe,
    artifact: Arrays,
    reference: Arrays,
    tolerance: Tolerance,
    hidden: Hidden | None = None,
    yardstick: Yardstick | None = None,
) -> ProbeResult:
    """Compare all outputs of one probe; names and their order must be the same.

    Args:
        probe: what was asked.
        artifact: its answers.
        reference: the eager model's answers.
        tolerance: by which values are judged without a yardstick.
        hidden: see `hidden_positions`; what nobody can read has to be finite, and is not compared.
        yardstick: judges floating values instead of the tolerance.
    """
    if list(artifact) != list(reference):
        return ProbeResult(probe, problem=f"outputs are {', '.join(artifact)}; the model gives {', '.join(reference)}")
    results: list[OutputResult] = []
    for name, wanted in reference.items():
        unread = (hidden or {}).get(name)
        result = compare_outputs(name, artifact[name], wanted, tolerance, unread)
        judged = yardstick is not None and name in yardstick.errors
        if yardstick is not None and judged and (result.slightly_off or (yardstick.dtype == "fp16" and result.max_abs)):
            result = _by_precision(result, artifact[name], wanted, unread, yardstick)
        if probe.greedy_steps and name == "tokens" and result.max_abs:
            result = _compare_tokens(artifact[name], wanted, *_scores(artifact, reference, tolerance, yardstick))
        results.append(result)
    return ProbeResult(probe, tuple(results))


def _by_precision(
    result: OutputResult,
    found: NDArray[Any],
    eager: NDArray[Any],
    hidden: NDArray[np.bool_] | None,
    yardstick: Yardstick,
) -> OutputResult:
    """Judge the values of an output by the model in higher precision instead of the tolerance."""
    distances = measure(
        found,
        eager,
        yardstick.answers[result.name],
        hidden,
        dtype=yardstick.dtype,
        error=yardstick.errors[result.name],
    )
    problem = ""
    if not distances.holds:
        missed = f"{result.problem}; also, " if result.problem else ""
        problem = (
            f"{missed}it is up to {distances.artifact:.3g} from the model in {distances.exact}; the eager model in "
            f"{yardstick.dtype} is {distances.eager:.3g} from it, and {distances.allowed:.3g} is allowed"
        )
    return replace(result, problem=problem, distances=distances)


def _scores(
    artifact: Arrays, reference: Arrays, tolerance: Tolerance, yardstick: Yardstick | None
) -> tuple[NDArray[Any], Tolerance]:
    """Return the logits that tell whether two tokens are tied, and how close tied logits are."""
    if yardstick is None:
        return reference["logits"], tolerance
    exact = yardstick.answers["logits"]
    distances = measure(
        artifact["logits"],
        reference["logits"],
        exact,
        None,
        dtype=yardstick.dtype,
        error=yardstick.errors["logits"],
    )
    return exact, Tolerance(distances.allowed, 0.0)


def compare_outputs(
    name: str,
    found: NDArray[Any],
    wanted: NDArray[Any],
    tolerance: Tolerance,
    hidden: NDArray[np.bool_] | None = None,
) -> OutputResult:
    """Compare dtype, shape, finiteness and values, in that order.

    Elements that nobody can read (`hidden`, broadcastable to the output) only have to be finite where the model's are.

    Integers must be equal. Floating values may differ by `atol + rtol * |reference|`. A value that is not finite must be
    the same in both, and a model none of whose values is finite proves nothing.
    """
    dtype, shape = str(found.dtype), tuple(found.shape)
    if found.dtype != wanted.dtype:
        return OutputResult(name, dtype, shape, problem=f"dtype is {dtype}; the model gives {wanted.dtype}")
    if found.shape != wanted.shape:
        return OutputResult(name, dtype, shape, problem=f"shape is {shape}; the model gives {tuple(wanted.shape)}")
    if found.size == 0:
        return OutputResult(name, dtype, shape, problem="it has no elements, so nothing was compared")
    unread = None if hidden is None else np.broadcast_to(hidden, found.shape)
    found_difference = _scan(found.reshape(-1), wanted.reshape(-1), _for_dtype(tolerance, found.dtype), unread)
    return _judge(name, found, wanted, tolerance, found_difference)


def _for_dtype(tolerance: Tolerance, dtype: np.dtype[Any]) -> Tolerance:
    return tolerance if dtype.kind == "f" else Tolerance(0.0, 0.0)


@dataclass
class _Difference:
    """What a scan has seen so far; places are indices into the flat arrays."""

    max_abs: float = 0.0
    max_rel: float = 0.0
    worst_at: int = 0
    worst_excess: float = -np.inf
    beyond: int = 0
    largest: float = 0.0
    not_finite_at: int | None = None
    any_finite: bool = False


def _scan(
    found: NDArray[Any], wanted: NDArray[Any], tolerance: Tolerance, hidden: NDArray[np.bool_] | None = None
) -> _Difference:
    seen = _Difference()
    for start in range(0, found.size, _CHUNK):
        a = found[start : start + _CHUNK].astype(np.float64)
        r = wanted[start : start + _CHUNK].astype(np.float64)
        unread: NDArray[np.bool_] | None = None if hidden is None else hidden.flat[start : start + _CHUNK]
        if unread is not None:
            # What nobody reads counts as equal, unless it is not finite: 0 times NaN is NaN.
            settled = unread & (np.isfinite(a) | ~np.isfinite(r))
            a, r = np.where(settled, 0.0, a), np.where(settled, 0.0, r)
        finite = np.isfinite(a) & np.isfinite(r)
        if not finite.all():
            differs = ~finite & ~((a == r) | (np.isnan(a) & np.isnan(r)))
            if seen.not_finite_at is None and differs.any():
                seen.not_finite_at = start + int(differs.argmax())
            a, r = np.where(finite, a, 0.0), np.where(finite, r, 0.0)
        seen.any_finite = seen.any_finite or bool((finite if unread is None else finite & ~unread).any())
        _scan_finite(a, r, tolerance, start, seen)
    return seen


def _scan_finite(
    a: NDArray[np.float64], r: NDArray[np.float64], tolerance: Tolerance, start: int, seen: _Difference
) -> None:
    difference = np.abs(a - r)
    magnitude = np.abs(r)
    seen.max_abs = max(seen.max_abs, float(difference.max()))
    seen.largest = max(seen.largest, float(magnitude.max()))
    relative = np.divide(difference, magnitude, out=np.zeros_like(difference), where=magnitude > 0)
    seen.max_rel = max(seen.max_rel, float(relative.max()))
    # From here on `magnitude` is what may be, and `difference` how much more there is.
    magnitude *= tolerance.rtol
    magnitude += tolerance.atol
    difference -= magnitude
    at = int(difference.argmax())
    if difference[at] > 0:
        seen.beyond += int(np.count_nonzero(difference > 0))
    if difference[at] > seen.worst_excess:
        seen.worst_excess, seen.worst_at = float(difference[at]), start + at


def _judge(
    name: str, found: NDArray[Any], wanted: NDArray[Any], tolerance: Tolerance, seen: _Difference
) -> OutputResult:
    at = seen.worst_at if seen.not_finite_at is None else seen.not_finite_at
    index = tuple(int(part) for part in np.unravel_index(at, found.shape))
    answer, model = float(found[index]), float(wanted[index])
    worst = {"index": list(index), "artifact": answer, "reference": model}
    problem = ""
    if seen.not_finite_at is not None:
        problem = f"at {list(index)} it is {answer:.9g}; the model gives {model:.9g}"
    elif not seen.any_finite:
        problem = "the model itself gives no finite value here, so nothing can be proved"
    elif seen.beyond:
        allowed = _for_dtype(tolerance, found.dtype)
        problem = (
            f"{seen.beyond} of {found.size} values differ too much; at {list(index)} it is {answer:.9g}, the model gives"
            f" {model:.9g} (allowed: {allowed.atol:g} + {allowed.rtol:g} * |{model:.3g}|;"
            f" largest difference {seen.max_abs:.3g})"
        )
    only_values = bool(seen.beyond) and seen.not_finite_at is None and seen.any_finite and found.dtype.kind == "f"
    slightly = only_values and seen.max_abs <= FAR * seen.largest
    return OutputResult(
        name, str(found.dtype), tuple(found.shape), seen.max_abs, seen.max_rel, worst, problem, slightly_off=slightly
    )


def _compare_tokens(
    found: NDArray[Any], wanted: NDArray[Any], logits: NDArray[Any], tolerance: Tolerance
) -> OutputResult:
    """Tokens that differ, judged by the model's own logits.

    Two tokens whose logits lie within the tolerance of each other are a tie, which logits that are right can decide
    either way. The next step goes on with the model's token in any case, so a tie takes nothing out of the comparison.
    """
    problem, worst = "", None
    for row, step in np.argwhere(found != wanted):
        artifact, model = int(found[row, step]), int(wanted[row, step])
        worst = worst or {"index": [int(row), int(step)], "artifact": artifact, "reference": model}
        chosen, other = float(logits[row, step, model]), float(logits[row, step, artifact])
        if not chosen - other <= 2 * tolerance.atol + tolerance.rtol * (abs(chosen) + abs(other)):
            problem = (
                f"row {row}, greedy step {step}: it chooses token {artifact}, the model {model},"
                f" whose logit is {chosen - other:.3g} larger"
            )
            worst = {"index": [int(row), int(step)], "artifact": artifact, "reference": model}
            break
    return OutputResult("tokens", str(found.dtype), tuple(found.shape), None, None, worst, problem)
