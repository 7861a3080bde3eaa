"""Find weights that a task needs and a checkpoint lacks, by the names in its files, without reading weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import transformers

from hfexport._internal.upstream.models import model_mapping
from hfexport.errors import HfexportError
from hfexport.export_config import DeclaredConfig, ExportConfig, Interface
from hfexport.export_config.tasks import TASKS
from hfexport.modeling.load import load_names, model_without_data
from hfexport.modeling.untrusted_config import BUILD_FAILURES

if TYPE_CHECKING:
    from hfexport.checkpoint import Checkpoint

__all__ = ["missing_weights", "whole_tasks"]


def missing_weights(checkpoint: Checkpoint, config: ExportConfig) -> tuple[str, ...]:
    """Return the weights that the task's model needs and the checkpoint lacks, as loading the model would find them.

    Args:
        checkpoint: opened checkpoint.
        config: export config of the task.

    Returns:
        Sorted names; also empty if this cannot be decided before the model is loaded.
    """
    graph = config.graphs("single")[0]
    try:
        model: Any = model_without_data(graph, "fp32")
        base = str(model.base_model_prefix)
        given = set(checkpoint.tensors)
        given |= {f"{base}.{name}" for name in given} | {name.removeprefix(f"{base}.") for name in given}
        if set(model.state_dict()) - given <= model.all_tied_weights_keys.keys():
            return ()
        return tuple(sorted(load_names(checkpoint.folder, graph)))
    except (HfexportError, OSError, *BUILD_FAILURES):
        return ()  # loading the model reports the error


def whole_tasks(checkpoint: Checkpoint, model_config: Any, known: type[ExportConfig] | None) -> Sequence[str]:
    """Return the tasks for which the checkpoint has every weight, in the order of `TASKS`.

    Args:
        checkpoint: opened checkpoint.
        model_config: its `PreTrainedConfig`.
        known: export config class of the architecture; `None` if the config is inferred from the model.
    """
    found = []
    for name, task in TASKS.items():
        if known is not None:
            if name not in known.tasks:
                continue
            draft: ExportConfig = known(model_config, task)
        elif type(model_config) in model_mapping(task.auto_class) and not task.with_past and task.heads:
            draft = DeclaredConfig(copy.deepcopy(model_config), task, Interface("", (), (), {}))
        else:
            continue
        auto_class = getattr(transformers, task.auto_class, None)
        if auto_class is not None and not missing_weights(checkpoint, draft):
            found.append(name)
    return found
