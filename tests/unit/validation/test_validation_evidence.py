"""Outputs that prove nothing make an artifact incomplete: values that hardly vary, or are hardly ever finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hfexport.export_config import Tolerance
from hfexport.export_config.probes import Probe
from hfexport.validation import ArtifactVerdict, Check, all_of
from hfexport.validation.compare import Yardstick, compare_probe
from hfexport.validation.evidence import CHECK, unproved

TOLERANCE = Tolerance(2e-5, 1e-4)
PROBES = tuple(Probe(f"batch {size}", {"batch": size}) for size in (2, 3))
RNG = np.random.default_rng(0)
VARIED = [RNG.standard_normal((size, 50)).astype(np.float32) for size in (2, 3)]


def check_of(
    wanted: dict[str, list[NDArray[Any]]],
    found: dict[str, list[NDArray[Any]]] | None = None,
    tolerance: Tolerance = TOLERANCE,
) -> Check | None:
    """The check on outputs of two probes, all of which have to pass."""
    results = tuple(
        compare_probe(
            probe,
            {name: arrays[number] for name, arrays in (found or wanted).items()},
            {name: arrays[number] for name, arrays in wanted.items()},
            tolerance,
        )
        for number, probe in enumerate(PROBES)
    )
    assert all(result.passed for result in results)
    return unproved(results, tolerance, "fp32", by_precision=True)


def test_values_that_vary_are_proved() -> None:
    assert check_of({"logits": VARIED}) is None


def test_an_artifact_of_zeros_is_not_proved_by_a_model_of_tiny_values() -> None:
    tiny = [one * np.float32(1e-7) for one in VARIED]
    zeros = [np.zeros_like(one) for one in tiny]
    check = check_of({"logits": VARIED, "pooled": tiny}, {"logits": VARIED, "pooled": zeros})
    assert check is not None and (check.name, check.verdict) == (CHECK, "not_run")
    assert check.reason == (
        "too little to compare: pooled: over all probes the model's values differ from each other by no more than "
        f"{max(map(np.max, tiny)) - min(map(np.min, tiny)):.3g}, and the tolerance is 2e-05, so that a constant would pass"
    )
    assert check_of({"pooled": tiny}) is not None, "a right artifact is not proved either"
    assert check_of({"pooled": tiny}, tolerance=Tolerance(1e-10, 0.0)) is None


def test_values_may_differ_between_probes_alone() -> None:
    assert check_of({"logits": [np.full((2, 1), 1.0, np.float32), np.full((2, 1), 2.0, np.float32)]}) is None


def test_a_large_offset_is_measured_by_the_relative_tolerance() -> None:
    offset = [np.float32(1000) + one * np.float32(0.01) for one in VARIED]
    assert check_of({"logits": offset}) is not None
    assert check_of({"logits": offset}, tolerance=Tolerance(2e-5, 0.0)) is None


def test_a_constant_output_is_accepted_beside_one_that_varies() -> None:
    ones = [np.ones_like(one) for one in VARIED]
    assert check_of({"logits": VARIED, "scale": ones}) is None
    assert (
        check_of({"logits": VARIED, "scale": ones}, {"logits": VARIED, "scale": [one + 1e-5 for one in ones]})
        is not None
    )
    check = check_of({"scale": ones})
    assert check is not None and check.reason == "too little to compare: scale: the model gives 1 everywhere"


def test_integers_are_compared_exactly_and_always_count() -> None:
    ids = [np.arange(4), np.arange(6)]
    assert check_of({"ids": ids}) is None
    assert check_of({"ids": [np.zeros(2, np.int64)] * 2}) is not None
    assert check_of({"ids": ids, "found": [np.ones(2, np.bool_)] * 2}) is None


def test_complex_values_vary_in_either_part() -> None:
    assert check_of({"spectrum": [(1 + 1j * one).astype(np.complex64) for one in VARIED]}) is None
    narrow = [(1 + 1e-6j * one).astype(np.complex64) for one in VARIED]
    real = [one.real.astype(np.complex64) for one in narrow]
    assert check_of({"logits": VARIED, "spectrum": narrow}, {"logits": VARIED, "spectrum": real}) is not None


def test_values_that_are_hardly_ever_finite_prove_nothing() -> None:
    half = [np.where(one > 0, one, -np.inf) for one in VARIED]
    assert check_of({"logits": half}) is None
    sparse = [np.full((2, 375), -np.inf, np.float32) for _ in PROBES]
    sparse[0][0, 0], sparse[1][0, 0] = 1, 2
    check = check_of({"logits": VARIED, "scores": sparse})
    assert check is not None and "scores: only 2 of the model's 1500 values are finite" in check.reason


@pytest.mark.parametrize(("spread", "proved"), [(1.0, True), (1e-3, False)])
def test_half_precision_is_measured_by_what_the_exact_model_allows(spread: float, proved: bool) -> None:
    """The tolerance of 1e-2 does not matter; eight roundings of the largest value, 2, do."""
    exact = [np.float32(2) - np.float32(spread) * RNG.random((size, 50), np.float32) for size in (2, 3)]
    eager = [one.astype(np.float16) for one in exact]
    results = tuple(
        compare_probe(
            probe,
            {"logits": np.nextafter(given, np.float16(9))},
            {"logits": given},
            Tolerance(2.0, 0.0),
            None,
            Yardstick({"logits": answer}, {"logits": 1e-4}, "fp16"),
        )
        for probe, given, answer in zip(PROBES, eager, exact, strict=True)
    )
    assert all(result.passed and result.outputs[0].distances for result in results)
    assert (unproved(results, Tolerance(2.0, 0.0), "fp16", by_precision=True) is None) == proved
    assert unproved(results, Tolerance(2.0, 0.0), "fp16", by_precision=False) is not None


def test_an_artifact_of_several_graphs_is_incomplete_if_one_of_them_is() -> None:
    good = compare_probe(PROBES[0], {"a": VARIED[0]}, {"a": VARIED[0]}, TOLERANCE)
    bad = compare_probe(PROBES[0], {"a": VARIED[0] + 1}, {"a": VARIED[0]}, TOLERANCE)
    check = Check(CHECK, "not_run", "too little")
    passed = ArtifactVerdict("passed", TOLERANCE, (good,))
    open_ = ArtifactVerdict("incomplete", TOLERANCE, (good,), "too little", checks=(check,))
    both = all_of([passed, open_])
    assert (both.verdict, both.reason, both.checks) == ("incomplete", "too little", (check,))
    assert all_of([open_, ArtifactVerdict("failed", TOLERANCE, (bad,))]).verdict == "failed"
    assert all_of([passed, passed]).verdict == "passed"
