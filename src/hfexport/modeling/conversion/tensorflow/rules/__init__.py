"""What the general naming cannot know of an architecture, one small file each. A new file here is found by itself."""

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
    """What is special about the weights of an architecture.

    Attributes:
        model_types: `model_type` values of config.json that this is about.
        renamed: pairs of a pattern and its replacement (`re.sub`), tried in order on the parameter's PyTorch name.
        left_out: patterns of PyTorch names of what TensorFlow stored though the PyTorch model has no use for it.
    """

    model_types: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...] = ()
    left_out: tuple[str, ...] = ()

    def rename(self, name: str) -> str:
        """The PyTorch name of a weight whose general name is `name`."""
        for pattern, replacement in self.renamed:
            name = re.sub(pattern, replacement, name)
        return name

    def leaves_out(self, name: str) -> bool:
        """Whether the model has no use for the weight `name`, if it has no place for it."""
        return any(re.search(pattern, name) for pattern in self.left_out)


def rules_for(model_type: str) -> Rules:
    """The rules of an architecture; empty ones if the general naming is all there is to it."""
    return next((rules for rules in _all_rules() if model_type in rules.model_types), Rules((model_type,)))


@cache
def _all_rules() -> tuple[Rules, ...]:
    return tuple(_found())


def _found() -> Iterator[Rules]:
    for module_info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        yield from (value for value in vars(module).values() if isinstance(value, Rules))
