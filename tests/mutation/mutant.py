"""What a mutant is, and how mutants of an artifact are chosen."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

__all__ = ["KINDS", "Mutant", "choose"]

KINDS: Final = (
    "operator swapped",
    "operator bypassed",
    "operands exchanged",
    "comparison made strict",
    "constant moved",
    "axis moved",
    "traced size baked in",
    "epsilon times 300",
    "mask or position logic",
    "inputs or outputs exchanged",
    "weight scaled by 1 %",
    "weight zeroed",
    "weight rolled",
    "weight transposed",
    "weight row changed",
    "weight element changed",
    "two weights exchanged",
)
"""Kinds of first-order mutants, in the order of the table."""


@dataclass(frozen=True)
class Mutant:
    """One change of a finished artifact.

    Attributes:
        kind: one of `KINDS`.
        place: where the change is, and to what; unique in an artifact.
        edit: makes the change in place: in an ONNX model, or in the records of a TorchScript archive.
        stored: whether the change is in stored weights, so that the mutant is wrong whatever it answers.
    """

    kind: str
    place: str
    edit: Callable[[Any], None]
    stored: bool = False


def choose(mutants: Iterable[Mutant], per_kind: int, seed: str, kinds: Sequence[str] = KINDS) -> list[Mutant]:
    """Choose up to `per_kind` mutants of each of `kinds`; the same seed chooses the same ones."""
    chosen = []
    found = list(mutants)
    for kind in kinds:
        of_kind = [mutant for mutant in found if mutant.kind == kind]
        rng = np.random.default_rng(zlib.crc32(f"{seed} {kind}".encode()))
        chosen += _some(of_kind, per_kind, rng)
    return chosen


def _some(mutants: Sequence[Mutant], number: int, rng: np.random.Generator) -> list[Mutant]:
    if len(mutants) <= number:
        return list(mutants)
    return [mutants[index] for index in sorted(rng.choice(len(mutants), number, replace=False))]
