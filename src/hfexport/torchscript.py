"""Trace a model in memory to TorchScript, as `torch.jit.trace` did with `torchscript=True` of transformers 4.

Transformers 5 has no such flag: its models return named outputs, which a trace cannot, and keep their weights tied. Its
model classes can be imported from this module by name, and then take the flag. For a checkpoint, prefer
`hfexport --formats torchscript`, which also validates the artifact.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers

from hfexport._internal.upstream.models import attend_eagerly
from hfexport.backends.torchscript.trace import give_own_storage, tidy_graphs
from hfexport.errors import MODEL_FAILURES, ExportError, InputsError, first_line
from hfexport.modeling.load import plain, quiet

__all__ = ["trace"]


def trace(
    model: torch.nn.Module, example_inputs: Sequence[torch.Tensor] | Mapping[str, torch.Tensor]
) -> torch.jit.ScriptModule:
    """Trace `model` to a module that returns a tuple of its tensors, in the model's order.

    A copy of the model is traced, in eval mode and with eager attention. Its tied weights are cloned, so the trace must
    not be trained further. `model` itself is not changed.

    Args:
        model: a model of transformers.
        example_inputs: tensors by name, which become positional inputs in this order; or tensors in the order of the
            model's `forward`, whose second parameter is usually the attention mask.

    Raises:
        InputsError: `example_inputs` contains other values than tensors, or none.
        ExportError: the model cannot be traced with these inputs.
    """
    named = isinstance(example_inputs, Mapping)
    names = tuple(example_inputs) if isinstance(example_inputs, Mapping) else ()
    tensors = tuple(example_inputs.values() if isinstance(example_inputs, Mapping) else example_inputs)
    if not tensors or not all(isinstance(tensor, torch.Tensor) for tensor in tensors):
        raise InputsError(["example_inputs must be one or more tensors, in a sequence or by name"])
    own = copy.deepcopy(model)
    give_own_storage(own)
    with plain(own), quiet(), torch.no_grad():
        try:
            traced = torch.jit.trace(_Plain(own, names if named else None), tensors, check_trace=False)
        except MODEL_FAILURES as error:
            raise ExportError(
                f"{type(model).__name__} cannot be traced: {first_line(error)}",
                remedy="Check that these are the inputs its forward takes.",
            ) from error
    tidy_graphs(traced, names)
    return traced  # type: ignore[no-any-return]


def __getattr__(name: str) -> Any:
    """Return a name of transformers; its model classes take `torchscript=True`, in the config or `from_pretrained`."""
    if name.startswith("_") or not hasattr(transformers, name):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(transformers, name)
    is_model = isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)
    return _with_flag(found) if is_model else found


def _with_flag(model_class: Any) -> Any:
    """Create a subclass of the same name whose flag `torchscript` sets tuples, eager attention and untied weights."""

    class Flagged(model_class):  # type: ignore[misc]
        def __init__(self, config: Any, *arguments: Any, **settings: Any) -> None:
            flagged = getattr(config, "torchscript", False)
            if flagged:
                config = copy.deepcopy(config)
                config.return_dict = False
                attend_eagerly(config)
            super().__init__(config, *arguments, **settings)
            if flagged:
                give_own_storage(self)

        @classmethod
        def from_pretrained(cls, *arguments: Any, torchscript: bool = False, **settings: Any) -> Any:
            if not torchscript:
                return super().from_pretrained(*arguments, **settings)
            settings |= {"attn_implementation": "eager", "return_dict": False}
            model = super().from_pretrained(*arguments, **settings)
            give_own_storage(model)
            return model

    Flagged.__name__ = Flagged.__qualname__ = model_class.__name__
    return Flagged


class _Plain(torch.nn.Module):
    """Call a model with tensors, by position or name, and return its output tensors as a tuple."""

    def __init__(self, model: torch.nn.Module, names: tuple[str, ...] | None) -> None:
        super().__init__()
        self.model = model
        self.names = names
        self.eval()

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self.names is None:
            outputs: Any = self.model(*tensors, return_dict=True, **self._no_cache())
        else:
            named = dict(zip(self.names, tensors, strict=True))
            outputs = self.model(**named, return_dict=True, **self._no_cache())
        return tuple(value for value in outputs.to_tuple() if isinstance(value, torch.Tensor))

    def _no_cache(self) -> dict[str, bool]:
        """Disable the cache, which is not a tensor; for decoders see docs/torchscript.md."""
        return {"use_cache": False} if hasattr(getattr(self.model, "config", None), "use_cache") else {}
