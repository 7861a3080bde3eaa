"""Naming rules for single architectures, beyond the general ones; every module in this folder is loaded."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

__all__ = ["Rules", "rules_for"]


@dataclass(frozen=True)
class Rules:
    """Naming rules of an architecture's weights.

    Attributes:
        model_types: `model_type` values of config.json that the rules apply to.
        renamed: pairs of a pattern and its replacement (`re.sub`), applied in order to the parameter's PyTorch name.
        left_out: patterns of PyTorch names that TensorFlow stored but the PyTorch model does not use.
    """

    model_types: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...] = ()
    left_out: tuple[str, ...] = ()

    def rename(self, name: str) -> str:
        """Return the PyTorch name of a weight, given its name by the general rules."""
        for pattern, replacement in self.renamed:
            name = re.sub(pattern, replacement, name)
        return name

    def leaves_out(self, name: str) -> bool:
        """Return whether the weight `name` can be left out if the model has no parameter for it."""
        return any(re.search(pattern, name) for pattern in self.left_out)


def rules_for(model_type: str) -> Rules:
    """Return the rules of an architecture; empty rules if the general naming is enough."""
    return next((rules for rules in _all_rules() if model_type in rules.model_types), Rules((model_type,)))


@cache
def _all_rules() -> tuple[Rules, ...]:
    return tuple(_found())


def _found() -> Iterator[Rules]:
    for module_info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        yield from (value for value in vars(module).values() if isinstance(value, Rules))
