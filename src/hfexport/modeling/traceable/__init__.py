"""Replace model code that no tracer can follow by equivalent operations that work for any shape.

A back end passes its own copy of a model to `make_traceable`. The classes in `transformers` and the reference model of
validation are not changed.
"""

from __future__ import annotations

import importlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from hfexport._internal.upstream.models import check_model
from hfexport.modeling.traceable import dynamic_rope

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

__all__ = ["make_traceable"]

_MODULES: Final[Mapping[str, str]] = MappingProxyType(
    {
        **{
            "big_bird": "big_bird",
            "bigbird_pegasus": "bigbird_pegasus",
            "canine": "canine",
            "encodec": "encodec",
            "led": "led",
            "longformer": "longformer",
            "nllb-moe": "nllb_moe",
            "switch_transformers": "switch_transformers",
        },
        **{"autoformer": "forecast", "informer": "forecast", "time_series_transformer": "forecast"},
    }
)
"""Module of this package for each `model_type`; its `make_traceable(model)` changes such a model in place."""


def make_traceable(model: torch.nn.Module) -> None:
    """Change `model` in place wherever its code depends on values, or on the length that it is traced at."""
    dynamic_rope.make_traceable(model)
    model_type = getattr(getattr(model, "config", None), "model_type", "")
    name = _MODULES.get(model_type)
    if name is not None:
        check_model(model_type)
        importlib.import_module(f"{__name__}.{name}").make_traceable(model)
