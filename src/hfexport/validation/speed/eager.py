"""Time the calls of the model in eager PyTorch, as transformers loads it, in a new process."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hfexport._internal.messages import read
from hfexport.errors import MODEL_FAILURES
from hfexport.export_config.builtin import restore_config
from hfexport.validation.arrays import read_arrays
from hfexport.validation.speed.clock import time_calls
from hfexport.validation.speed.protocol import EagerJob, TimedCall

if TYPE_CHECKING:
    from hfexport.modeling.load import FlatModel

__all__ = ["run"]


def run(values: Mapping[str, Any]) -> dict[str, Any]:
    """Time every call.

    Args:
        values: those of an `EagerJob`.

    Returns:
        `attention`: name of the attention implementation: `sdpa`, the default of transformers, or `eager` for models
        that have no other.
    """
    import torch

    from hfexport._internal.upstream.models import attention_of
    from hfexport.modeling.load import load_model
    from hfexport.modeling.untrusted_config import read_model_config
    from hfexport.modeling.wrappers import flat_model

    job = read(values, EagerJob)
    torch.set_num_threads(job.threads)
    checkpoint = Path(job.checkpoint)
    model_config = read_model_config(checkpoint, trust_remote_code=job.recipes[0]["trust_remote_code"])
    configs = [restore_config(recipe, model_config) for recipe in job.recipes]
    model = load_model(checkpoint, configs[0], job.dtype)
    _attend_by_default(model)
    # In the order of the graphs: a decoder's module removes the encoder from the model.
    modules = {config.graph: flat_model(model, config) for config in configs}
    changing = {config.graph for config in configs if config.changes_when_called}

    def prepare(call: TimedCall) -> Callable[[], object]:
        module: FlatModel = modules[call.graph]
        if call.graph in changing:
            module = copy.deepcopy(module)
        arrays = read_arrays(Path(job.inputs) / str(call.number))
        given = [torch.from_numpy(np.array(arrays[name])) for name in module.input_names]
        half = [tensor.half() if job.dtype == "fp16" and tensor.is_floating_point() else tensor for tensor in given]
        return lambda: module(*half)

    with torch.inference_mode():
        calls = [(call.number, lambda call=call: prepare(call)) for call in job.calls]
        time_calls(calls, Path(job.folder), job.budget_s, MODEL_FAILURES)
    return {"attention": attention_of(model.config)}


def _attend_by_default(model: Any) -> None:
    """Choose the attention that `from_pretrained` chooses, if the model has it."""
    from hfexport.modeling.load import quiet

    try:
        with quiet():
            model.set_attn_implementation("sdpa")
    except ValueError:
        model.set_attn_implementation("eager")
