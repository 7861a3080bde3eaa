"""An export config as plain values, for a process that has not read the model's config with transformers.

The process of the reference, which has, describes its export configs to the exporting process (`hfexport.run.warm`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any, Final, cast

from hfexport.export_config.base import ExportConfig, Layout, Limit, TensorSpec, Tolerance
from hfexport.export_config.recipe import Recipe
from hfexport.export_config.tasks import Task

__all__ = ["DescribedConfig", "describe_config"]

_TEXT_FIELDS: Final = (
    *("sliding_window", "local_attention", "attention_window", "local_transformer_stride"),
    *("rope_parameters", "max_position_embeddings", "pad_token_id"),
)
"""Fields of a model's config that are read while an artifact is validated and described."""


def describe_config(config: ExportConfig, dtype: str) -> dict[str, Any]:
    """Return JSON values from which `DescribedConfig` restores what validation and the manifest read."""
    text = config.text_config
    branches = config.branches
    return {
        "graph": config.graph,
        "origin": config.origin,
        "model_type": config.config.model_type,
        "task": config.task.to_dict(),
        "recipe": dict(config.recipe),
        "inputs": [spec.to_dict() for spec in config.inputs],
        "outputs": [spec.to_dict() for spec in config.outputs],
        "limits": {axis: asdict(limit) for axis, limit in config.limits.items()},
        "thresholds": dict(config.thresholds),
        "trace_sizes": dict(config.trace_sizes),
        "tolerance": asdict(config.tolerance(dtype)),
        "start_token": config.start_token,
        "text": {name: getattr(text, name) for name in _TEXT_FIELDS if hasattr(text, name)},
        "prompt": None if config.prompt is config else describe_config(config.prompt, dtype),
        "branches": None if branches == (config,) else [describe_config(branch, dtype) for branch in branches],
    }


class DescribedConfig(ExportConfig):
    """Export config that returns described values.

    Args:
        values: result of `describe_config`.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(SimpleNamespace(model_type=values["model_type"]), Task.from_dict(values["task"]))
        self.values = values

    @property
    def origin(self) -> str:
        return str(self.values["origin"])

    @property
    def recipe(self) -> Recipe:
        return cast("Recipe", self.values["recipe"])

    @property
    def graph(self) -> str:
        return str(self.values["graph"])

    def graphs(self, layout: Layout) -> tuple[ExportConfig, ...]:
        """Raise an error: only the described graph is known.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError

    @property
    def branches(self) -> tuple[ExportConfig, ...]:
        branches = self.values["branches"]
        return (self,) if branches is None else tuple(DescribedConfig(branch) for branch in branches)

    @property
    def prompt(self) -> ExportConfig:
        prompt = self.values["prompt"]
        return self if prompt is None else DescribedConfig(prompt)

    @property
    def start_token(self) -> int:
        return int(self.values["start_token"])

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec.from_dict(spec) for spec in self.values["inputs"])

    @property
    def own_outputs(self) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec.from_dict(spec) for spec in self.values["outputs"])

    @property
    def limits(self) -> Mapping[str, Limit]:
        return {axis: Limit(**limit) for axis, limit in self.values["limits"].items()}

    @property
    def thresholds(self) -> Mapping[str, int]:
        return dict(self.values["thresholds"])

    @property
    def trace_sizes(self) -> Mapping[str, int]:
        return dict(self.values["trace_sizes"])

    @property
    def text_config(self) -> Any:
        return SimpleNamespace(**self.values["text"])

    def tolerance(self, dtype: str) -> Tolerance:
        """Return the tolerance for the dtype of the description."""
        del dtype
        return Tolerance(**self.values["tolerance"])
