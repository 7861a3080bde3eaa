"""Rotary embeddings with length-dependent frequencies: compute them from the positions in every call.

The code in transformers stores the frequencies of the longest call so far, and compares a value to see whether it is
exceeded (`dynamic_rope_update` in modeling_rope_utils.py), which no tracer can follow. An artifact has no state, so it
computes the frequencies in every call. The result is the same, since calls of a generation never get shorter. Remove
this when transformers selects with `torch.where` here, as it does for longrope.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch

__all__ = ["make_traceable"]


def make_traceable(model: torch.nn.Module) -> None:
    """Change every rotary embedding of rope type `dynamic` or `longrope` in `model` in place."""
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        found = set(kinds.values()) if isinstance(kinds, dict) else {kinds}
        plain = getattr(type(module).forward, "__wrapped__", None)
        if plain is not None and any(_is_dynamic(kind) for kind in found):
            module.forward = MethodType(_forward(inspect.unwrap(plain)), module)  # unwraps `torch.no_grad` as well


def _is_dynamic(rope_type: Any) -> bool:
    return isinstance(rope_type, str) and ("dynamic" in rope_type or rope_type == "longrope")


def _forward(plain: Callable[..., Any]) -> Callable[..., Any]:
    def forward(self: Any, x: torch.Tensor, position_ids: torch.Tensor, layer_type: str | None = None) -> Any:
        kind = self.rope_type if layer_type is None else self.rope_type[layer_type]
        arguments = {} if layer_type is None else {"layer_type": layer_type}
        if not _is_dynamic(kind):
            return plain(self, x, position_ids, **arguments)
        prefix = "" if layer_type is None else f"{layer_type}_"
        frequencies = _frequencies(self, prefix, layer_type, kind, position_ids.max() + 1)
        return plain(_WithFrequencies(self, f"{prefix}inv_freq", frequencies), x, position_ids, **arguments)

    return forward


class _WithFrequencies:
    """A rotary embedding with other frequencies for one call."""

    def __init__(self, module: Any, name: str, frequencies: torch.Tensor) -> None:
        self._module = module
        setattr(self, name, frequencies)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _frequencies(module: Any, prefix: str, layer_type: str | None, kind: str, length: torch.Tensor) -> torch.Tensor:
    """Compute the inverse frequencies, (head size / 2,), for `length` positions with the functions of transformers."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    original = getattr(module, f"{prefix}original_inv_freq")
    parameters = module.config.rope_parameters
    threshold, reached = module.original_max_seq_len, length
    if kind == "longrope":
        # longrope has only two sets of frequencies, for lengths up to one threshold and above it.
        threshold = (parameters if layer_type is None else parameters[layer_type])["original_max_position_embeddings"]
        reached = threshold + 1
    grown, _ = ROPE_INIT_FUNCTIONS[kind](module.config, original.device, seq_len=reached, layer_type=layer_type)
    return torch.where(length > threshold, grown, original)
