"""Judging by the model in higher precision: a float64 model that is another model, or not finite, allows nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from transformers import BertConfig

from hfexport.export_config import Tolerance
from hfexport.export_config.builtin import config_class_for
from hfexport.export_config.probes import Probe
from hfexport.export_config.tasks import TASKS
from hfexport.validation.arrays import write_arrays
from hfexport.validation.judge import Answers, judge_all
from hfexport.validation.precision import FAR

CONFIG = config_class_for("bert")(BertConfig(num_labels=3), TASKS["sequence-classification"])
EXACT = np.random.default_rng(0).standard_normal((2, 3))
NEAR = 1e-6
"""Error of both computations in float32: above the tolerance, and within what the model in float64 allows."""


def _answers(folder: Path, exact: NDArray[Any]) -> Answers:
    """Outputs of an artifact that differs from the eager model by rounding alone, and of the model in float64."""
    probe = Probe("batch 2, sequence 4", {"batch": 2, "sequence": 4})
    write_arrays(folder / "reference/inputs/0", probe.inputs(CONFIG, "fp32"))
    write_arrays(folder / "reference/outputs/0", {"logits": (EXACT + NEAR).astype(np.float32)})
    write_arrays(folder / "reference/exact/0", {"logits": exact})
    for name in ("0", "again"):
        write_arrays(folder / "artifact/outputs" / name, {"logits": (EXACT - NEAR).astype(np.float32)})
    tolerance = Tolerance(NEAR, 0.0)
    return Answers(CONFIG, (probe,), "fp32", folder / "reference", folder / "artifact", {}, tolerance)


def test_an_artifact_as_near_to_float64_as_the_model_is(tmp_path: Path) -> None:
    answers = _answers(tmp_path, EXACT)
    assert all(result.passed for result in judge_all(answers, exact=False, ask_exactly=lambda: True))


def test_a_model_that_does_not_run_in_float64_allows_nothing(tmp_path: Path) -> None:
    answers = _answers(tmp_path, EXACT)
    assert not any(result.passed for result in judge_all(answers, exact=False, ask_exactly=lambda: False))


@pytest.mark.parametrize(
    "exact",
    [
        np.full((2, 3), np.nan),
        np.where(np.arange(6).reshape(2, 3) == 4, np.nan, EXACT),
        np.where(np.arange(6).reshape(2, 3) == 4, np.inf, EXACT),
        EXACT + 2 * FAR * np.abs(EXACT).max(),
        -EXACT,
        np.zeros((2, 3)),
    ],
    ids=["nan", "one nan", "one inf", "too far", "negated", "zeros"],
)
def test_a_float64_model_that_is_another_model_allows_nothing(tmp_path: Path, exact: NDArray[Any]) -> None:
    answers = _answers(tmp_path, exact)
    asked = []
    (result,) = judge_all(answers, exact=False, ask_exactly=lambda: not asked.append(1))  # type: ignore[func-returns-value]
    assert asked, "it was asked"
    assert not result.passed
    assert result.outputs[0].problem
