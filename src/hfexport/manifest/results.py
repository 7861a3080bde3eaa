"""Describe validation results and measured quality in the manifest."""

from __future__ import annotations

from hfexport.export_config import Tolerance
from hfexport.manifest.model import (
    CheckEntry,
    MeasureEntry,
    OutputEntry,
    ProbeEntry,
    QualityEntry,
    ToleranceEntry,
    ValidationEntry,
    WeightsEntry,
)
from hfexport.validation.quality import Measure, Quality
from hfexport.validation.verdict import ArtifactVerdict, Check, OutputResult, ProbeResult
from hfexport.validation.weights import Proof

__all__ = ["quality_entry", "validation_entry"]


def validation_entry(verdict: ArtifactVerdict) -> ValidationEntry:
    """Describe the result of validating one artifact."""
    tolerance = verdict.tolerance
    return {
        "verdict": verdict.verdict,
        "reason": verdict.reason,
        "session": verdict.session,
        "tolerance": _tolerance(tolerance),
        "tolerance_share": verdict.tolerance_share,
        "loose_tolerance": tolerance is not None and tolerance.is_loose,
        "max_abs_diff": verdict.max_abs,
        "max_rel_diff": verdict.max_rel,
        "probes": [_probe(result) for result in verdict.probes],
        "checks": [_check(check) for check in verdict.checks],
        "weights": None if verdict.weights is None else _weights(verdict.weights),
        "left_out": list(verdict.left_out),
    }


def quality_entry(quality: Quality) -> QualityEntry:
    """Describe the measured quality of a variant."""
    return {
        "verdict": quality.verdict,
        "reason": quality.reason,
        "data": quality.data,
        "samples": quality.samples,
        "measures": [_measure(measure) for measure in quality.measures],
    }


def _check(check: Check) -> CheckEntry:
    return {
        "name": check.name,
        "verdict": check.verdict,
        "reason": check.reason,
        "tolerance": _tolerance(check.tolerance),
        "max_abs_diff": check.max_abs,
        "probes": [_probe(result) for result in check.probes],
    }


def _probe(result: ProbeResult) -> ProbeEntry:
    probe = result.probe
    return {
        "name": probe.name,
        "sizes": dict(probe.sizes),
        "padding": probe.padding,
        "greedy_steps": probe.greedy_steps,
        "verdict": "passed" if result.passed else "failed",
        "problem": result.problem,
        "outputs": [_output(output) for output in result.outputs],
    }


def _output(output: OutputResult) -> OutputEntry:
    worst, distances = output.worst, output.distances
    return {
        "name": output.name,
        "dtype": output.dtype,
        "shape": list(output.shape),
        "max_abs": output.max_abs,
        "max_rel": output.max_rel,
        "tolerance_share": output.tolerance_share,
        "worst": None
        if worst is None
        else {"index": list(worst.index), "artifact": worst.artifact, "reference": worst.reference},
        "problem": output.problem,
        "distances": None
        if distances is None
        else {
            "exact": distances.exact,
            "artifact": distances.artifact,
            "eager": distances.eager,
            "allowed": distances.allowed,
        },
    }


def _weights(proof: Proof) -> WeightsEntry:
    constants = proof.constants
    return {
        "proved_bytes": proof.proved_bytes,
        "constants": [{"name": name, "size_bytes": size_bytes} for name, size_bytes in constants],
    }


def _measure(measure: Measure) -> MeasureEntry:
    return {
        "graph": measure.graph,
        "name": measure.name,
        "value": measure.value,
        "at_least": measure.at_least,
        "at_most": measure.at_most,
        "verdict": "passed" if measure.passed else "failed",
    }


def _tolerance(tolerance: Tolerance | None) -> ToleranceEntry | None:
    return None if tolerance is None else {"atol": tolerance.atol, "rtol": tolerance.rtol}
