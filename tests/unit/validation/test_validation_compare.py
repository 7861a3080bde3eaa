"""The comparison of two arrays says no to each kind of difference, and what it says is exact."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from transformers import AutoConfig

from hfexport.export_config import Tolerance
from hfexport.export_config.builtin import config_class_for
from hfexport.export_config.probes import Probe
from hfexport.export_config.tasks import TASKS
from hfexport.manifest.entries import to_json
from hfexport.manifest.results import validation_entry
from hfexport.validation import ArtifactVerdict, OutputResult, ProbeResult, not_run, resolve_tolerance
from hfexport.validation.compare import compare_outputs, compare_probe, declared_problem
from hfexport.validation.precision import measure, relative_errors
from hfexport.validation.verdict import Worst

TOLERANCE = Tolerance(1e-3, 1e-2)
PROBE = Probe("batch 2, sequence 3", {"batch": 2, "sequence": 3})
GREEDY = Probe("greedy", {"batch": 1, "sequence": 3, "past_sequence": 0}, greedy_steps=2)


def floats(*values: float) -> NDArray[Any]:
    return np.array(values, dtype=np.float32)


def compare(found: NDArray[Any], wanted: NDArray[Any], tolerance: Tolerance = TOLERANCE) -> OutputResult:
    return compare_outputs("logits", found, wanted, tolerance)


def test_values_within_the_tolerance_pass_and_their_largest_difference_is_recorded() -> None:
    result = compare(floats(1.0, -2.01, 0.0005), floats(1.0, -2.0, 0.0))
    assert result.problem == ""
    assert result.max_abs == pytest.approx(0.01, rel=1e-4)
    assert result.max_rel == pytest.approx(0.005, rel=1e-4)


def test_the_tolerance_grows_with_the_reference_not_with_the_answer() -> None:
    assert compare(floats(100.0), floats(101.01)).problem == ""
    assert compare(floats(2.0), floats(0.0), Tolerance(0.0, 1.0)).problem != ""
    assert compare(floats(0.0), floats(2.0), Tolerance(0.0, 1.0)).problem == ""


def test_the_bound_itself_is_allowed() -> None:
    assert compare(floats(1.5), floats(1.0), Tolerance(0.5, 0.0)).problem == ""
    assert compare(floats(1.5), floats(1.0), Tolerance(0.0, 0.5)).problem == ""
    assert compare(floats(1.0001), floats(1.0), Tolerance(0.0, 0.0)).problem != ""


def test_the_worst_element_is_the_one_farthest_past_its_tolerance() -> None:
    wanted = np.full((2, 3), 1000.0, dtype=np.float32)
    found = wanted + 5.0
    wanted[1, 2], found[1, 2] = 1.0, 2.0
    result = compare(found, wanted)
    assert result.worst == Worst((1, 2), 2.0, 1.0)
    assert result.max_abs == 5.0
    assert result.problem == (
        "1 of 6 values differ too much; at [1, 2] it is 2, the model gives 1"
        " (allowed: 0.001 + 0.01 * |1|; largest difference 5)"
    )


@pytest.mark.parametrize("place", [0, (1 << 17) - 1, 1 << 17, (1 << 18) + 5, 300_000 - 1])
def test_one_wrong_element_is_found_wherever_it_is(place: int) -> None:
    wanted = np.linspace(-1, 1, 300_000, dtype=np.float32).reshape(3, 100_000)
    found = wanted.copy()
    found.reshape(-1)[place] += 1
    result = compare(found, wanted)
    assert result.worst is not None
    assert result.worst.index == (place // 100_000, place % 100_000)
    assert result.problem.startswith("1 of 300000 values")
    found.reshape(-1)[place] = np.nan
    result = compare(found, wanted)
    assert result.worst is not None
    assert result.worst.index == (place // 100_000, place % 100_000)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_must_be_the_same_in_both(value: float) -> None:
    assert "the model gives" in compare(floats(1.0, value), floats(1.0, 2.0)).problem
    assert "the model gives" in compare(floats(1.0, 2.0), floats(1.0, value)).problem
    assert compare(floats(1.0, value), floats(1.0, value)).problem == ""
    assert "the model gives" in compare(floats(1.0, value), floats(1.0, 0.0 if np.isnan(value) else np.nan)).problem
    assert "the model gives" in compare(floats(1.0, np.inf), floats(1.0, -np.inf)).problem


def test_a_difference_is_not_hidden_by_an_infinite_tolerance_elsewhere() -> None:
    result = compare(floats(np.inf, 1.0), floats(np.inf, 2.0))
    assert result.problem.startswith("1 of 2 values")
    assert result.max_abs == 1.0


def test_a_model_without_a_finite_value_proves_nothing() -> None:
    assert "nothing can be proved" in compare(floats(np.nan, np.nan), floats(np.nan, np.nan)).problem


def test_an_output_without_elements_proves_nothing() -> None:
    assert "nothing was compared" in compare(floats(), floats()).problem


def test_dtype_and_shape_come_first() -> None:
    wrong = compare(floats(1.0).astype(np.float16), floats(1.0))
    assert wrong.problem == "dtype is float16; the model gives float32"
    assert wrong.max_abs is None
    assert compare(floats(1.0), np.array([1])).problem == "dtype is float32; the model gives int64"
    assert compare(floats(1.0, 2.0), floats(1.0)).problem == "shape is (2,); the model gives (1,)"
    assert compare(floats(1.0), np.array(1.0, np.float32)).problem == "shape is (1,); the model gives ()"


def test_integers_must_be_equal() -> None:
    assert compare(np.array([5000]), np.array([5001]), Tolerance(1e9, 1.0)).problem.startswith("1 of 1 values")
    assert compare(np.array([5000]), np.array([5000])).problem == ""


@pytest.mark.parametrize(
    ("dtype", "found", "wanted", "max_abs"),
    [
        (np.int64, 2**53 + 1, 2**53, 1.0),
        (np.int64, -(2**62), -(2**62) - 1, 1.0),
        (np.int64, 2**63 - 1, -(2**63), 2.0**64),
        (np.uint64, 2**64 - 1, 2**64 - 2, 1.0),
        (np.int8, 127, -128, 255.0),
        (np.bool_, True, False, 1.0),
    ],
)
def test_integers_are_compared_exactly_however_large(dtype: Any, found: int, wanted: int, max_abs: float) -> None:
    result = compare(np.array([wanted, found], dtype), np.array([wanted, wanted], dtype), Tolerance(1e9, 1.0))
    assert result.problem.startswith(
        f"1 of 2 values differ too much; at [1] it is {int(found)}, the model gives {int(wanted)} ("
    )
    assert (result.max_abs, result.worst) == (
        max_abs,
        Worst((1,), int(found), int(wanted)),
    )
    assert compare(np.array([found], dtype), np.array([found], dtype)).problem == ""


def test_complex_values_are_compared_as_complex_numbers() -> None:
    wanted = np.array([3 + 4j, 1 - 2j], np.complex64)
    assert compare(wanted, wanted).problem == ""
    assert compare(wanted * (1 + 1e-3), wanted).problem == ""
    result = compare(wanted.conj(), wanted)
    assert result.problem == (
        "2 of 2 values differ too much; at [0] it is 3-4j, the model gives 3+4j"
        " (allowed: 0.001 + 0.01 * |3+4j|; largest difference 8)"
    )
    assert (result.max_abs, result.max_rel) == (8.0, pytest.approx(8 / 5**0.5 / 2))
    verdict = ArtifactVerdict("failed", TOLERANCE, (ProbeResult(PROBE, (result,)),))
    assert json.loads(to_json(validation_entry(verdict)))["probes"][0]["outputs"][0]["worst"]["artifact"] == "3-4j"
    wrong = wanted.copy()
    wrong[1] = complex(1, np.nan)
    assert compare(wrong, wanted).problem == "at [1] it is 1+nanj; the model gives 1-2j"
    other = wanted.copy()
    other[1] = complex(2, np.nan)
    assert "the model gives" in compare(wrong, other).problem
    assert compare(wrong, wrong).problem == ""


def test_a_complex_output_is_judged_by_the_model_in_higher_precision() -> None:
    exact = np.array([3 + 4j, 1 - 2j])
    eager = exact.astype(np.complex64)
    close = measure(eager, eager, exact, None, dtype="fp32", error=0.0)
    assert close.holds and relative_errors({"a": eager}, {"a": exact}, {})["a"] < 1e-6
    turned = measure(eager.conj(), eager, exact, None, dtype="fp32", error=0.0)
    assert (turned.holds, turned.artifact) == (False, pytest.approx(8.0))


def test_names_and_their_order_must_be_the_models() -> None:
    one, two = floats(1.0), floats(2.0)
    assert compare_probe(PROBE, {"a": one, "b": two}, {"a": one, "b": two}, TOLERANCE).passed
    swapped = compare_probe(PROBE, {"b": two, "a": one}, {"a": one, "b": two}, TOLERANCE)
    assert swapped.problem == "outputs are b, a; the model gives a, b"
    assert not compare_probe(PROBE, {"a": one}, {"a": one, "b": two}, TOLERANCE).passed
    assert not compare_probe(PROBE, {"a": one, "b": two, "c": two}, {"a": one, "b": two}, TOLERANCE).passed
    assert not compare_probe(PROBE, {}, {}, TOLERANCE).passed


def decoded(tokens: list[int], logits: list[list[float]]) -> dict[str, NDArray[Any]]:
    return {"tokens": np.array([tokens]), "logits": np.array([logits], dtype=np.float32)}


def test_other_tokens_fail_unless_the_model_itself_ties_them() -> None:
    wanted = decoded([2, 0], [[0.0, 1.0, 2.0], [1.0, 0.9999, 0.5]])
    tied = compare_probe(GREEDY, wanted | {"tokens": np.array([[2, 1]])}, wanted, TOLERANCE)
    assert tied.passed
    assert tied.outputs[0].worst == Worst((0, 1), 1, 0)
    other = compare_probe(GREEDY, wanted | {"tokens": np.array([[1, 1]])}, wanted, TOLERANCE)
    assert other.outputs[0].problem == (
        "row 0, greedy step 0: it chooses token 1, the model 2, whose logit is 1 larger"
    )
    exact = compare_probe(GREEDY, wanted | {"tokens": np.array([[2, 1]])}, wanted, Tolerance(0.0, 0.0))
    assert "greedy step 1" in exact.outputs[0].problem


def test_what_a_model_gives_must_be_what_its_config_declares() -> None:
    config = config_class_for("bert")(AutoConfig.for_model("bert"), TASKS["question-answering"])
    logits = np.zeros((2, 3), np.float32)
    assert declared_problem(config, PROBE, {"start_logits": logits, "end_logits": logits}) == ""
    assert "declares start_logits, end_logits" in declared_problem(config, PROBE, {"start_logits": logits})
    turned = {"start_logits": logits, "end_logits": logits.T}
    assert declared_problem(config, PROBE, turned) == (
        "the model gives end_logits as (3, 2); its export config declares (batch, sequence), here (2, 3)"
    )


def test_passed_cannot_be_said_of_what_did_not_pass() -> None:
    good = compare_probe(PROBE, {"a": floats(1.0)}, {"a": floats(1.0)}, TOLERANCE)
    bad = compare_probe(PROBE, {"a": floats(1.0)}, {"a": floats(2.0)}, TOLERANCE)
    assert ArtifactVerdict("passed", TOLERANCE, (good,)).max_abs == 0.0
    for probes in ((), (good, bad), (good, ProbeResult(PROBE))):
        with pytest.raises(ValueError, match="passed"):
            ArtifactVerdict("passed", TOLERANCE, probes)
    with pytest.raises(ValueError, match="not_run"):
        not_run("")
    assert validation_entry(not_run("validate is off"))["verdict"] == "not_run"


def test_a_failure_names_probe_and_output_and_is_json() -> None:
    bad = compare_probe(PROBE, {"a": floats(np.nan)}, {"a": floats(2.0)}, TOLERANCE)
    verdict = ArtifactVerdict("failed", TOLERANCE, (bad, ProbeResult(PROBE, problem="refused")))
    assert verdict.failures == (
        "batch 2, sequence 3: a: at [0] it is nan; the model gives 2",
        "batch 2, sequence 3: refused",
    )
    assert json.loads(to_json(validation_entry(verdict)))["probes"][0]["outputs"][0]["worst"]["artifact"] == "nan"


def test_a_users_atol_alone_is_absolute() -> None:
    config = config_class_for("bert")(AutoConfig.for_model("bert"), TASKS["default"])
    default = config.tolerance("fp32")
    assert resolve_tolerance(config, "fp32", None, None) == default
    assert resolve_tolerance(config, "fp32", 1e-3, None) == Tolerance(1e-3, 0.0)
    assert resolve_tolerance(config, "fp32", 0.0, None) == Tolerance(0.0, 0.0)
    assert resolve_tolerance(config, "fp32", None, 1e-3) == Tolerance(default.atol, 1e-3)
    assert resolve_tolerance(config, "fp32", 1e-3, 1e-2) == Tolerance(1e-3, 1e-2)
