"""Results of validation: of an output, a probe and an artifact. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hfexport.export_config import Tolerance
from hfexport.export_config.probes import Probe
from hfexport.validation.weights import Proof

__all__ = [
    "ArtifactVerdict",
    "Check",
    "Distances",
    "Exact",
    "OutputResult",
    "ProbeResult",
    "Values",
    "Verdict",
    "Worst",
    "all_of",
    "not_run",
]

Verdict = Literal["passed", "failed", "incomplete", "not_run"]
"""Verdicts; `incomplete` means that all checks that ran passed, and some could not run here."""


Exact = Literal["fp32", "fp64"]
"""A precision higher than the artifact's."""


@dataclass(frozen=True)
class Distances:
    """Largest differences of an output from the model in higher precision, over the unmasked values of a probe.

    Attributes:
        exact: the higher precision.
        artifact: difference of the artifact.
        eager: difference of the eager model in the artifact's precision.
        allowed: largest allowed difference of the artifact.
    """

    exact: Exact
    artifact: float
    eager: float
    allowed: float

    @property
    def holds(self) -> bool:
        return self.artifact <= self.allowed


@dataclass(frozen=True)
class Worst:
    """The element of an output that comes closest to its tolerance, or exceeds it most.

    Attributes:
        index: index of the element.
        artifact: the artifact's value; text for complex numbers.
        reference: the model's value, likewise.
    """

    index: tuple[int, ...]
    artifact: float | str
    reference: float | str


@dataclass(frozen=True)
class Values:
    """The model's unmasked values of one output of one probe.

    Attributes:
        lowest: lowest finite value; for complex values, that of both parts.
        highest: highest finite value, likewise.
        largest: largest finite magnitude.
        finite: number of finite values.
        readable: number of unmasked values.
        exact: values must be equal, as for integers and booleans.
    """

    lowest: tuple[float, ...]
    highest: tuple[float, ...]
    largest: float
    finite: int
    readable: int
    exact: bool


@dataclass(frozen=True)
class OutputResult:
    """Result of one output of one probe.

    Attributes:
        name: name of the output.
        dtype: numpy's name of the artifact's dtype.
        shape: shape of the artifact's output.
        max_abs: largest absolute difference; `None` if it could not be computed.
        max_rel: largest difference relative to the reference, if the reference is not 0.
        worst: element that comes closest to its tolerance, or exceeds it most.
        problem: reason of the failure; empty if it passed.
        slightly_off: it failed, but only by differences that rounding might explain.
        distances: differences from the model in higher precision, if that judged the output.
        values: values of the model, if they were compared.
        within: largest difference relative to the tolerance of its element, ignoring the higher precision.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    max_abs: float | None = None
    max_rel: float | None = None
    worst: Worst | None = None
    problem: str = ""
    slightly_off: bool = False
    distances: Distances | None = None
    values: Values | None = None
    within: float | None = None

    @property
    def tolerance_share(self) -> float | None:
        """Return the largest ratio of a difference to the allowed difference; above 1 if the output failed by it."""
        if self.distances is None:
            return self.within
        if self.distances.allowed == 0:
            return 0.0 if self.distances.artifact == 0 else float("inf")
        return self.distances.artifact / self.distances.allowed


@dataclass(frozen=True)
class ProbeResult:
    """Results of all outputs of one probe; `problem` concerns the whole probe, such as an error of the runtime."""

    probe: Probe
    outputs: tuple[OutputResult, ...] = ()
    problem: str = ""

    @property
    def passed(self) -> bool:
        return not self.problem and bool(self.outputs) and not any(output.problem for output in self.outputs)


@dataclass(frozen=True)
class Check:
    """One of several checks of an artifact besides its outputs.

    Attributes:
        name: name of the check.
        verdict: `passed`, `failed` or `not_run`.
        reason: why it failed or was not run; for `passed`, the finding, or empty.
        tolerance: tolerance of values, if values were compared.
        probes: results of probes, if any were run.

    Raises:
        ValueError: `failed` or `not_run` without a reason, or `passed` with a failed probe.
    """

    name: str
    verdict: Literal["passed", "failed", "not_run"]
    reason: str = ""
    tolerance: Tolerance | None = None
    probes: tuple[ProbeResult, ...] = ()

    def __post_init__(self) -> None:
        if self.verdict != "passed" and not self.reason:
            raise ValueError(f"check {self.name}: verdict {self.verdict!r} needs a reason")
        if self.verdict == "passed" and not all(result.passed for result in self.probes):
            raise ValueError(f"check {self.name}: verdict `passed` with a probe that failed")

    @property
    def max_abs(self) -> float | None:
        return _largest(output.max_abs for result in self.probes for output in result.outputs)


@dataclass(frozen=True)
class ArtifactVerdict:
    """Result of validating one artifact.

    Attributes:
        verdict: `passed` only if at least one probe was run and all probes and checks passed; `incomplete` if some
            checks could not be run and all else passed; `not_run` if nothing was run.
        tolerance: tolerance of values.
        probes: results of the probes, in order.
        reason: why it was not run, or what failed other than the probes.
        session: `default`, or `frugal` if memory was short or the weights were large.
        checks: further checks besides the probes.
        weights: result of comparing the stored tensors; `None` if they were not compared.
        left_out: names of the model's outputs that were not compared.

    Raises:
        ValueError: `passed` for an artifact that did not pass, or `not_run` without a reason.
    """

    verdict: Verdict
    tolerance: Tolerance | None = None
    probes: tuple[ProbeResult, ...] = ()
    reason: str = ""
    session: str = ""
    checks: tuple[Check, ...] = ()
    weights: Proof | None = None
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        proved = bool(self.probes) and all(result.passed for result in self.probes) and self.tolerance is not None
        found = {check.verdict for check in self.checks}
        if self.verdict == "passed" and not (proved and found <= {"passed"}):
            raise ValueError("verdict `passed` without probes, or with a probe or a check that did not pass")
        if self.verdict == "incomplete" and not (proved and "not_run" in found and "failed" not in found):
            raise ValueError("verdict `incomplete` needs passed probes and a check that could not be run")
        if self.verdict == "not_run" and (not self.reason or self.probes):
            raise ValueError("verdict `not_run` needs a reason, and has no results")

    def with_weights(self, proof: Proof) -> ArtifactVerdict:
        """Add the result for the stored tensors; a difference makes the artifact fail."""
        if not proof.problems:
            return replace(self, weights=proof)
        more = f" (and {len(proof.problems) - 3} more)" if len(proof.problems) > 3 else ""
        reason = "; ".join(filter(None, [self.reason, *proof.problems[:3]])) + more
        return replace(self, verdict="failed", reason=reason, weights=proof)

    @property
    def max_abs(self) -> float | None:
        return _largest(output.max_abs for result in self.probes for output in result.outputs)

    @property
    def max_rel(self) -> float | None:
        return _largest(output.max_rel for result in self.probes for output in result.outputs)

    @property
    def tolerance_share(self) -> float | None:
        """Return the largest ratio of a difference to its tolerance, over all probes and outputs."""
        return _largest(output.tolerance_share for result in self.probes for output in result.outputs)

    @property
    def validated_up_to(self) -> dict[str, int]:
        """Return the largest size of each axis in the probes."""
        sizes: dict[str, int] = {}
        for result in self.probes:
            for axis, size in result.probe.sizes.items():
                sizes[axis] = max(size, sizes.get(axis, 0))
        return sizes

    @property
    def probe_lines(self) -> tuple[str, ...]:
        """Return one line per probe: its largest difference, and the largest ratio of a difference to its tolerance."""
        lines = []
        for result in self.probes:
            largest = _largest(output.max_abs for output in result.outputs)
            share = _largest(output.tolerance_share for output in result.outputs)
            found = "failed" if not result.passed else "passed"
            told = (
                ""
                if largest is None or share is None
                else f", off by {largest:.2g} at most, {share:.2g} of the tolerance"
            )
            lines.append(f"  {result.probe.name}: {found}{told}")
        return tuple(lines)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return one line for each check that could not be run."""
        if self.reason:
            return (self.reason,) if self.verdict == "incomplete" else ()
        return tuple(f"{check.name}: not run: {check.reason}" for check in self.checks if check.verdict == "not_run")

    @property
    def failures(self) -> tuple[str, ...]:
        """Return one line for each failure: probe, output, finding."""
        lines = [self.reason] if self.verdict == "failed" and self.reason else []
        lines.extend(f"{check.name}: {check.reason}" for check in self.checks if check.verdict == "failed")
        for result in self.probes:
            if result.problem:
                lines.append(f"{result.probe.name}: {result.problem}")
            lines.extend(
                f"{result.probe.name}: {output.name}: {output.problem}" for output in result.outputs if output.problem
            )
        return tuple(lines)


def all_of(verdicts: Sequence[ArtifactVerdict]) -> ArtifactVerdict:
    """Combine the verdicts of the graphs of one artifact; it passes if all do."""
    if len(verdicts) == 1:
        return verdicts[0]
    found = {verdict.verdict for verdict in verdicts}
    together: Verdict = (
        "passed" if found == {"passed"} else "incomplete" if found <= {"passed", "incomplete"} else "failed"
    )
    return ArtifactVerdict(
        together,
        verdicts[0].tolerance,
        tuple(result for verdict in verdicts for result in verdict.probes),
        "; ".join(dict.fromkeys(verdict.reason for verdict in verdicts if verdict.reason)),
        "frugal" if any(verdict.session == "frugal" for verdict in verdicts) else verdicts[-1].session,
        tuple(check for verdict in verdicts for check in verdict.checks),
        next((verdict.weights for verdict in verdicts if verdict.weights is not None), None),
        tuple(dict.fromkeys(name for verdict in verdicts for name in verdict.left_out)),
    )


def not_run(reason: str) -> ArtifactVerdict:
    """Return the verdict of an artifact that was not validated."""
    return ArtifactVerdict("not_run", reason=reason)


def _largest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
