"""Record outputs of the model that are not compared."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["recorded_names", "without"]


@contextmanager
def recorded_names(model: torch.nn.Module) -> Iterator[dict[str, None]]:
    """Record the names of all outputs that `model` returns, in order, each once."""
    names: dict[str, None] = {}

    def record(module: torch.nn.Module, arguments: Any, given: Any) -> None:
        del module, arguments
        if isinstance(given, Mapping):
            names.update(dict.fromkeys(str(name) for name, value in given.items() if value is not None))

    handle = model.register_forward_hook(record)
    try:
        yield names
    finally:
        handle.remove()


def without(names: Collection[str], compared: Collection[str]) -> tuple[str, ...]:
    """Return the names of outputs that are not compared.

    Args:
        names: names from `recorded_names`.
        compared: names of compared outputs; `attentions.0` belongs to `attentions`, `present.0.key` to
            `past_key_values`.
    """
    whole = {name.partition(".")[0] for name in compared}
    if "present" in whole:
        whole.add("past_key_values")
    return tuple(name for name in names if name not in whole)
