"""A slice of `make mutation`: mutants of one model, and the judge that says which of them are wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hfexport.export_config import Tolerance
from mutation.harness import Harness
from mutation.judge import Question, wrong_at
from mutation.mutant import KINDS, Mutant, choose
from mutation.subjects import SUBJECTS

MODEL = next(subject for subject in SUBJECTS if subject.name == "gpt2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keeps exports for all tests."""
    return tmp_path_factory.mktemp("mutation")


SLICE = ("comparison made strict", "epsilon times 300", "mask or position logic", "inputs or outputs exchanged")


@pytest.mark.parametrize(
    ("format_name", "kinds"), [("onnx", SLICE), pytest.param("torchscript", KINDS, marks=pytest.mark.thorough)]
)
def test_wrong_mutants_are_refused(format_name: str, kinds: tuple[str, ...], folder: Path) -> None:
    harness = Harness(folder, 1, 0, kinds)
    with harness.running():
        results = list(harness.mutate(MODEL, format_name))
        again = list(harness.mutate(MODEL, format_name))
    assert again == results, "what is known is not asked again"
    wrong = [result for result in results if result.verdict in ("refused", "survived")]
    assert len(wrong) >= len(kinds) - 3
    assert [result for result in wrong if result.verdict == "survived"] == []


def test_the_same_seed_chooses_the_same_mutants() -> None:
    mutants = [Mutant(kind, str(number), print) for kind in KINDS for number in range(9)]
    assert choose(mutants, 2, "a") == choose(mutants, 2, "a")
    assert choose(mutants, 2, "a") != choose(mutants, 2, "b")
    assert len(choose(mutants, 2, "a")) == 2 * len(KINDS)


def test_the_judge() -> None:
    question = Question({}, {"logits": np.array([[True, False]])[..., None]})
    tolerance = Tolerance(1e-3, 0.0)
    right = np.zeros((1, 2, 3), np.float32)
    near, far, hidden = right + np.float32(2e-3), right.copy(), right.copy()
    far[0, 0, 1] = 4e-3
    hidden[0, 1] = np.nan
    for answer, wrong in ((right, False), (near, False), (hidden, False), (far, True), (right + np.nan, True)):
        assert bool(wrong_at(question, {"logits": answer}, {"logits": right}, tolerance)) is wrong
    assert wrong_at(question, {"logits": right[:, :1]}, {"logits": right}, tolerance)


def test_a_survivor_is_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A harness to which a refusal is none reports survivors."""
    harness = Harness(folder, per_kind=1, seed=1)
    monkeypatch.setattr("mutation.harness.REFUSED", 7)
    monkeypatch.setattr("mutation.harness.choose", lambda mutants, *_: [next(m for m in mutants if m.kind == KINDS[0])])
    with harness.running():
        (result,) = harness.mutate(MODEL, "onnx")
    assert result.verdict == "survived"
