"""Compares what an artifact answers with what the model answers, element by element, and gives a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hfexport.export_config import Tolerance
from hfexport.probes import Probe

__all__ = ["ArtifactVerdict", "OutputResult", "ProbeResult", "compare_outputs", "compare_probe"]

Verdict = Literal["passed", "failed", "not_run"]
Arrays = Mapping[str, NDArray[Any]]

_CHUNK = 1 << 22
"""Elements compared at once: outputs may be larger than memory should be."""


@dataclass(frozen=True)
class OutputResult:
    """One output of one probe.

    Attributes:
        name: of the output.
        dtype: numpy's name of the artifact's dtype.
        shape: of the artifact's output.
        max_abs: largest absolute difference; `None` where it could not be compared.
        max_rel: largest difference relative to the reference.
        worst: where the largest excess over the tolerance sits: index, and both values.
        problem: why it failed; empty if it passed.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    max_abs: float | None = None
    max_rel: float | None = None
    worst: Mapping[str, Any] | None = None
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "max_abs": self.max_abs,
            "max_rel": self.max_rel,
            "worst": None if self.worst is None else dict(self.worst),
            "problem": self.problem,
        }


@dataclass(frozen=True)
class ProbeResult:
    """All outputs of one probe; `problem` is what concerns the whole probe, such as a refusal by the run time."""

    probe: Probe
    outputs: tuple[OutputResult, ...] = ()
    problem: str = ""

    @property
    def passed(self) -> bool:
        return not self.problem and bool(self.outputs) and not any(output.problem for output in self.outputs)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.probe.name,
            "sizes": dict(self.probe.sizes),
            "padding": self.probe.padding,
            "greedy_steps": self.probe.greedy_steps,
            "verdict": "passed" if self.passed else "failed",
            "problem": self.problem,
            "outputs": [output.to_dict() for output in self.outputs],
        }


@dataclass(frozen=True)
class ArtifactVerdict:
    """What validation found of one artifact. `passed` only if every probe was asked and passed."""

    verdict: Verdict
    tolerance: Tolerance | None = None
    probes: tuple[ProbeResult, ...] = ()
    reason: str = ""
    session: str = ""
    stages: Mapping[str, Any] = field(default_factory=dict)

    @property
    def max_abs(self) -> float | None:
        return _largest(output.max_abs for result in self.probes for output in result.outputs)

    @property
    def max_rel(self) -> float | None:
        return _largest(output.max_rel for result in self.probes for output in result.outputs)

    @property
    def failures(self) -> tuple[str, ...]:
        """One line for each thing that is wrong: probe, output, what was found."""
        lines = [self.reason] if self.verdict == "failed" and self.reason else []
        for result in self.probes:
            if result.problem:
                lines.append(f"{result.probe.name}: {result.problem}")
            lines.extend(f"{result.probe.name}: {output.name}: {output.problem}" for output in result.outputs if output.problem)
        return tuple(lines)

    def to_dict(self) -> dict[str, Any]:
        tolerance = self.tolerance
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "session": self.session,
            "tolerance": None if tolerance is None else {"atol": tolerance.atol, "rtol": tolerance.rtol},
            "max_abs_diff": self.max_abs,
            "max_rel_diff": self.max_rel,
            "probes": [result.to_dict() for result in self.probes],
        }


def _largest(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return max(known, default=None)


def compare_probe(probe: Probe, artifact: Arrays, reference: Arrays, tolerance: Tolerance) -> ProbeResult:
    """Compare all outputs of one probe; names and their order must be the same."""
    if list(artifact) != list(reference):
        return ProbeResult(probe, problem=f"outputs are {', '.join(artifact)}; the model gives {', '.join(reference)}")
    results = tuple(compare_outputs(name, artifact[name], reference[name], tolerance) for name in reference)
    return ProbeResult(probe, results)


def compare_outputs(name: str, found: NDArray[Any], wanted: NDArray[Any], tolerance: Tolerance) -> OutputResult:
    """Compare dtype, shape, finiteness and values, in that order.

    Integers (tokens) must be equal. Floating values may differ by `atol + rtol * |reference|`. A value that is not finite
    must be the same in both.
    """
    dtype, shape = str(found.dtype), tuple(found.shape)
    if found.dtype != wanted.dtype:
        return OutputResult(name, dtype, shape, problem=f"dtype is {dtype}; the model gives {wanted.dtype}")
    if found.shape != wanted.shape:
        return OutputResult(name, dtype, shape, problem=f"shape is {shape}; the model gives {tuple(wanted.shape)}")
    if found.dtype.kind != "f":
        tolerance = Tolerance(0.0, 0.0)
    return _compare_values(name, found, wanted, tolerance)


def _compare_values(name: str, found: NDArray[Any], wanted: NDArray[Any], tolerance: Tolerance) -> OutputResult:
    max_abs = max_rel = 0.0
    worst_excess, worst_at = -np.inf, 0
    not_finite: int | None = None
    flat_found, flat_wanted = found.reshape(-1), wanted.reshape(-1)
    for start in range(0, flat_found.size, _CHUNK):
        a = np.asarray(flat_found[start : start + _CHUNK]).astype(np.float64)
        r = np.asarray(flat_wanted[start : start + _CHUNK]).astype(np.float64)
        finite = np.isfinite(a) & np.isfinite(r)
        same = (a == r) | (np.isnan(a) & np.isnan(r))
        bad = ~finite & ~same
        if not_finite is None and bad.any():
            not_finite = start + int(bad.argmax())
        difference = np.where(finite, np.abs(np.where(finite, a, 0) - np.where(finite, r, 0)), 0)
        magnitude = np.where(finite, np.abs(r), 0)
        max_abs = max(max_abs, float(difference.max(initial=0)))
        relative = np.divide(difference, magnitude, out=np.zeros_like(difference), where=magnitude > 0)
        max_rel = max(max_rel, float(relative.max(initial=0)))
        excess = difference - (tolerance.atol + tolerance.rtol * magnitude)
        at = int(excess.argmax()) if excess.size else 0
        if excess.size and excess[at] > worst_excess:
            worst_excess, worst_at = float(excess[at]), start + at
    at = worst_at if not_finite is None else not_finite
    worst = _element(found, wanted, at) if flat_found.size else None
    problem = ""
    if not_finite is not None and worst is not None:
        problem = f"at {worst['index']} it is {worst['artifact']}; the model gives {worst['reference']}"
    elif worst_excess > 0 and worst is not None:
        problem = (
            f"at {worst['index']} it is {worst['artifact']:.9g}; the model gives {worst['reference']:.9g}"
            f" (atol {tolerance.atol:g}, rtol {tolerance.rtol:g}; largest difference {max_abs:.3g})"
        )
    return OutputResult(name, str(found.dtype), tuple(found.shape), max_abs, max_rel, worst, problem)


def _element(found: NDArray[Any], wanted: NDArray[Any], at: int) -> dict[str, Any]:
    index = tuple(int(part) for part in np.unravel_index(at, found.shape))
    return {"index": list(index), "artifact": float(found[index]), "reference": float(wanted[index])}
