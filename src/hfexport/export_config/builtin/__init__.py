"""Export configs, one file per architecture or family. New files are found automatically; there is no list to edit."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import Any

from hfexport.errors import UnsupportedError
from hfexport.export_config import (
    LAYOUTS,
    DeclaredConfig,
    DeclaredSeq2Seq,
    ExportConfig,
    Interface,
    SentenceModules,
    Seq2SeqInterface,
    TensorSpec,
)
from hfexport.export_config.recipe import Recipe, TaskValues
from hfexport.export_config.tasks import TASKS, Task, sentence_task

__all__ = ["config_class_for", "known_architectures", "restore_config"]


@cache
def known_architectures() -> dict[str, type[ExportConfig]]:
    """Return the export config class of every known `model_type`."""
    found: dict[str, type[ExportConfig]] = {}
    for module_info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, ExportConfig) and value.__module__ == module.__name__:
                found.update(dict.fromkeys(value.model_types, value))
    return found


def config_class_for(model_type: str) -> type[ExportConfig]:
    """Return the export config class of a `model_type`: `gpt_neo`, or `gpt-neo` as in `transformers.onnx`.

    Raises:
        UnsupportedError: no architecture has that name.
    """
    known = known_architectures()
    if model_type not in known and (underscored := model_type.replace("-", "_")) in known:
        return known[underscored]
    if model_type not in known:
        raise UnsupportedError(
            f"model_type {model_type!r} in config.json is not an architecture that hfexport knows",
            remedy=f"Known are: {', '.join(sorted(known))}. docs/adding-an-architecture.md tells how to add one.",
        )
    return known[model_type]


def _more_outputs(recipe: Recipe) -> dict[str, tuple[TensorSpec, ...]]:
    found = recipe.get("more_outputs", {})
    return {graph: tuple(TensorSpec.from_dict(spec) for spec in specs) for graph, specs in found.items()}


def _task(task: str | TaskValues, sentence: SentenceModules | None) -> Task:
    """Return the task of a recipe."""
    if not isinstance(task, str):
        return Task.from_dict(task)
    return TASKS[task] if sentence is None else sentence_task(sentence)


def restore_config(recipe: Recipe, model_config: Any) -> ExportConfig:
    """Rebuild the export config that produced `recipe`.

    Args:
        recipe: see `ExportConfig.recipe`.
        model_config: the model's `PreTrainedConfig`, newly read.
    """
    trust = bool(recipe["trust_remote_code"])
    sentence = SentenceModules.from_dict(recipe["sentence"]) if "sentence" in recipe else None
    task = _task(recipe["task"], sentence)
    if "interface" in recipe:
        interface = Interface.from_dict(recipe["interface"])
        declared = DeclaredConfig(model_config, task, interface, trust_remote_code=trust, sentence=sentence)
        return declared.with_more_outputs(_more_outputs(recipe))
    if "seq2seq" in recipe:
        seq2seq = Seq2SeqInterface.from_dict(recipe["seq2seq"])
        family = DeclaredSeq2Seq(model_config, task, seq2seq, trust_remote_code=trust)
        return family.graphs("single")[0]
    config_class = config_class_for(recipe["model_type"])
    known = config_class(model_config, task, trust_remote_code=trust, sentence=sentence)
    config: ExportConfig = known.with_more_outputs(_more_outputs(recipe))
    if measured := recipe.get("positions"):
        config = config.with_measured_positions(measured)
    return next(graph for layout in LAYOUTS for graph in config.graphs(layout) if graph.recipe == recipe)
