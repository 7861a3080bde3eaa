"""A slice of the grid of `make conformance`: a model of each kind. The thorough tests run one of each architecture's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conformance.cases import GUIDE, Case, run
from hfexport.export_config.builtin import known_architectures


def _slice() -> list[Case]:
    """The first model type of each file, with the last of its tasks."""
    chosen: dict[str, Case] = {}
    for model_type, config in known_architectures().items():
        chosen.setdefault(config.__module__, Case(model_type, config.tasks[-1]))
    return list(chosen.values())


HALF = (
    Case("t5", "default", dtype="fp16"),
    Case("longt5", "default", dtype="fp16"),
    Case("marian", "default", dtype="fp16"),
    Case("deepseek_v3", "auto", dtype="fp16"),
    Case("led", "auto", dtype="fp16"),
    Case("nllb-moe", "auto", dtype="fp16"),
)
"""Models that keep weights or buffers in float32, that convert weights when called, and that clamp states."""

INFERRED = tuple(Case(name, "auto") for name in ("autoformer", "canine", "encodec", "mamba", "mistral", "vivit"))
"""A model of each kind that takes something else than the others: series, operators of our own, placeholders, a cache, videos."""

QUICK = ("clip", "gpt2", "imagegpt", "mistral", "vit")
"""One for each base class of export configs, and inferred ones. Other modules of tests export encoders of text,
encoder-decoders and sound."""


def _cases() -> list[Any]:
    cases = [*_slice(), *INFERRED, *HALF]
    return [case if case.model_type in QUICK else pytest.param(case, marks=pytest.mark.thorough) for case in cases]


@pytest.mark.parametrize("case", _cases(), ids=lambda case: case.name)
def test_case(case: Case, tmp_path: Path) -> None:
    result = run(case, tmp_path)
    assert result["passed"], result["problem"]


def test_a_case_that_cannot_pass_fails(tmp_path: Path) -> None:
    assert not run(Case("bert", "masked-lm"), tmp_path, arguments=("--atol", "1e-12"))["passed"]


def test_the_guides_pairs_are_read() -> None:
    assert len(GUIDE) == 281
    assert ("bert", "masked-lm") in GUIDE
