"""Verdicts: what may be said of an artifact, and what may not."""

from __future__ import annotations

import pytest

from hfexport.export_config import Tolerance
from hfexport.export_config.probes import Probe
from hfexport.manifest.results import validation_entry
from hfexport.validation import ArtifactVerdict, Check, OutputResult, ProbeResult


def _verdict(*checks: Check, verdict: str = "incomplete", passed: bool = True) -> ArtifactVerdict:
    probe = Probe("batch 1", {"batch": 1})
    result = ProbeResult(probe, (OutputResult("logits", "float32", (1,), 0.0, 0.0, None, "" if passed else "off"),))
    return ArtifactVerdict(verdict, Tolerance(1e-5, 0.0), (result,), checks=checks)  # type: ignore[arg-type]


NOT_RUN = Check("device", "not_run", "no Neuron device")


def test_what_could_not_be_checked_is_never_passed() -> None:
    assert validation_entry(_verdict(NOT_RUN))["checks"][0]["reason"] == "no Neuron device"
    assert _verdict(Check("device", "passed"), verdict="passed").failures == ()
    for checks, verdict, passed in [
        ((NOT_RUN,), "passed", True),
        ((Check("device", "failed", "off"),), "passed", True),
        ((Check("device", "failed", "off"), NOT_RUN), "incomplete", True),
        ((Check("device", "passed"),), "incomplete", True),
        ((), "incomplete", True),
        ((NOT_RUN,), "incomplete", False),
    ]:
        with pytest.raises(ValueError, match=f"verdict `{verdict}`"):
            _verdict(*checks, verdict=verdict, passed=passed)


def test_a_check_says_why_it_failed_or_was_not_run() -> None:
    for verdict in ("failed", "not_run"):
        with pytest.raises(ValueError, match="needs a reason"):
            Check("device", verdict)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="with a probe that failed"):
        Check("trace", "passed", probes=_verdict(NOT_RUN, verdict="failed", passed=False).probes)
    failures = _verdict(Check("compiled", "failed", "nothing was compiled"), verdict="failed").failures
    assert failures == ("compiled: nothing was compiled",)
