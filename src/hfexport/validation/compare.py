"""Compare an artifact's outputs with the model's, element by element.

Numpy only. Arrays may be memory maps larger than memory: `scan` reads them in parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfexport.export_config import ExportConfig, Tolerance, axis_size
from hfexport.export_config.arrays import Arrays
from hfexport.export_config.probes import Probe
from hfexport.validation.precision import FAR, measure
from hfexport.validation.scan import Scan, for_dtype, scan
from hfexport.validation.verdict import ArtifactVerdict, OutputResult, ProbeResult, Values, Worst

__all__ = [
    "ArtifactVerdict",
    "OutputResult",
    "ProbeResult",
    "Yardstick",
    "compare_outputs",
    "compare_probe",
    "declared_problem",
]

Hidden = Mapping[str, NDArray[np.bool_]]


def declared_problem(config: ExportConfig, probe: Probe, reference: Arrays) -> str:
    """Return how the model's own outputs differ from its export config; empty if they do not.

    With too few outputs in the config, the comparison would miss some.
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
    """Outputs of the model in a higher precision, by which an artifact is judged. See `precision`.

    Attributes:
        answers: outputs of the model in higher precision, by name.
        errors: largest relative error of the eager model over all probes, by output name.
        dtype: dtype of the artifact, `fp32` or `fp16`.
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
    """Compare all outputs of one probe; names and order must be equal.

    Args:
        probe: probe that was run.
        artifact: outputs of the artifact.
        reference: outputs of the eager model.
        tolerance: tolerance of values without a yardstick.
        hidden: masked positions, see `hidden_positions`; their values must be finite, and are not compared.
        yardstick: judges floating values in place of the tolerance.
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
    """Return the logits that decide whether two tokens are tied, and the largest difference of tied logits."""
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

    Masked elements (`hidden`, broadcastable to the output) only have to be finite where the model's are.

    Integers must be equal. Floating and complex values may differ by `atol + rtol * |reference|`, where `|...|` is the
    magnitude of a complex number. A non-finite value must be the same in both. A model without finite values fails.
    """
    dtype, shape = str(found.dtype), tuple(found.shape)
    if found.dtype != wanted.dtype:
        return OutputResult(name, dtype, shape, problem=f"dtype is {dtype}; the model gives {wanted.dtype}")
    if found.shape != wanted.shape:
        return OutputResult(name, dtype, shape, problem=f"shape is {shape}; the model gives {tuple(wanted.shape)}")
    if found.size == 0:
        return OutputResult(name, dtype, shape, problem="it has no elements, so nothing was compared")
    unread = None if hidden is None else np.broadcast_to(hidden, found.shape)
    found_difference = scan(found.reshape(-1), wanted.reshape(-1), for_dtype(tolerance, found.dtype), unread)
    return _judge(name, found, wanted, tolerance, found_difference)


def _judge(name: str, found: NDArray[Any], wanted: NDArray[Any], tolerance: Tolerance, seen: Scan) -> OutputResult:
    at = seen.worst_at if seen.not_finite_at is None else seen.not_finite_at
    index = tuple(int(part) for part in np.unravel_index(at, found.shape))
    worst = Worst(index, _recorded(found[index]), _recorded(wanted[index]))
    answer, model = _shown(found[index]), _shown(wanted[index])
    problem = ""
    if seen.not_finite_at is not None:
        problem = f"at {list(index)} it is {answer}; the model gives {model}"
    elif not seen.any_finite:
        problem = "the model itself gives no finite value here, so nothing can be proved"
    elif seen.beyond:
        allowed = for_dtype(tolerance, found.dtype)
        problem = (
            f"{seen.beyond} of {found.size} values differ too much; at {list(index)} it is {answer}, the model gives"
            f" {model} (allowed: {allowed.atol:g} + {allowed.rtol:g} * |{_shown(wanted[index], 3)}|;"
            f" largest difference {seen.max_abs:.3g})"
        )
    only_values = bool(seen.beyond) and seen.not_finite_at is None and seen.any_finite and found.dtype.kind in "fc"
    slightly = only_values and seen.max_abs <= FAR * seen.largest
    exact = found.dtype.kind not in "fc"
    values = Values(seen.lowest, seen.highest, seen.largest, seen.finite, seen.readable, exact)
    return OutputResult(
        name,
        str(found.dtype),
        tuple(found.shape),
        seen.max_abs,
        seen.max_rel,
        worst,
        problem,
        slightly_off=slightly,
        values=values,
        within=seen.max_share,
    )


def _recorded(value: Any) -> float | int | str:
    """Return one value as JSON holds it: integers exactly, complex numbers as text."""
    if value.dtype.kind == "c":
        return _shown(value)
    return float(value) if value.dtype.kind == "f" else int(value)


def _shown(value: Any, digits: int = 9) -> str:
    if value.dtype.kind == "c":
        return f"{value.real:.{digits}g}{value.imag:+.{digits}g}j"
    return f"{float(value):.{digits}g}" if value.dtype.kind == "f" else str(int(value))


def _compare_tokens(
    found: NDArray[Any], wanted: NDArray[Any], logits: NDArray[Any], tolerance: Tolerance
) -> OutputResult:
    """Compare tokens; a difference is allowed if the model's logits are tied.

    Two tokens are tied if their logits differ by at most the tolerance: correct logits can then select either. The next
    step uses the model's token in any case, so a tie removes nothing from the comparison.
    """
    problem, worst = "", None
    for row, step in np.argwhere(found != wanted):
        artifact, model = int(found[row, step]), int(wanted[row, step])
        worst = worst or Worst((int(row), int(step)), artifact, model)
        chosen, other = float(logits[row, step, model]), float(logits[row, step, artifact])
        if not chosen - other <= 2 * tolerance.atol + tolerance.rtol * (abs(chosen) + abs(other)):
            problem = (
                f"row {row}, greedy step {step}: it chooses token {artifact}, the model {model},"
                f" whose logit is {chosen - other:.3g} larger"
            )
            worst = Worst((int(row), int(step)), artifact, model)
            break
    return OutputResult("tokens", str(found.dtype), tuple(found.shape), None, None, worst, problem)
