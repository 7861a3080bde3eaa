"""An export config as plain values, for a process that has not read the model's config with transformers.

The process of the reference, which has, describes its export configs to the exporting process (`hfexport.run.warm`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, Final

import msgspec

from hfexport.export_config.base import ExportConfig, Layout, Limit, TensorSpec, Tolerance
from hfexport.export_config.recipe import Recipe
from hfexport.export_config.tasks import Task

__all__ = ["ConfigDescription", "DescribedConfig", "describe_config"]

_TEXT_FIELDS: Final = (
    *("sliding_window", "local_attention", "attention_window", "local_transformer_stride"),
    *("rope_parameters", "max_position_embeddings", "pad_token_id"),
)
"""Fields of a model's config that are read while an artifact is validated and described."""


class ConfigDescription(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Values of an export config that validation and the manifest use.

    Attributes:
        graph: name of the graph.
        origin: origin of the interface.
        model_type: `model_type` in config.json.
        task: task of the export.
        recipe: values from which another process builds the export config.
        inputs: inputs in the artifact's order.
        outputs: outputs in the artifact's order.
        limits: smallest and largest sizes by axis.
        thresholds: by axis, the size above which the model computes differently.
        trace_sizes: sizes of the free axes in the traced example.
        tolerance: default tolerance for the dtype of the export.
        start_token: first token of a decoder.
        text: fields of the model's text config, see `_TEXT_FIELDS`.
        prompt: graph that takes the prompt of a generation; `None` for this graph.
        branches: graphs that this one contains; `None` for only itself.
    """

    graph: str
    origin: str
    model_type: str
    task: Task
    recipe: Recipe
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    limits: dict[str, Limit]
    thresholds: dict[str, int]
    trace_sizes: dict[str, int]
    tolerance: Tolerance
    start_token: int
    text: dict[str, Any]
    prompt: ConfigDescription | None
    branches: tuple[ConfigDescription, ...] | None


def describe_config(config: ExportConfig, dtype: str) -> ConfigDescription:
    """Return the values from which `DescribedConfig` restores an export config for validation and the manifest."""
    text = config.text_config
    branches = config.branches
    return ConfigDescription(
        graph=config.graph,
        origin=config.origin,
        model_type=config.config.model_type,
        task=config.task,
        recipe=config.recipe,
        inputs=config.inputs,
        outputs=config.outputs,
        limits=dict(config.limits),
        thresholds=dict(config.thresholds),
        trace_sizes=dict(config.trace_sizes),
        tolerance=config.tolerance(dtype),
        start_token=config.start_token,
        text={name: getattr(text, name) for name in _TEXT_FIELDS if hasattr(text, name)},
        prompt=None if config.prompt is config else describe_config(config.prompt, dtype),
        branches=None if branches == (config,) else tuple(describe_config(branch, dtype) for branch in branches),
    )


class DescribedConfig(ExportConfig):
    """Export config that returns described values.

    Args:
        values: result of `describe_config`.
    """

    def __init__(self, values: ConfigDescription) -> None:
        super().__init__(SimpleNamespace(model_type=values.model_type), values.task)
        self.values = values

    @property
    def origin(self) -> str:
        return self.values.origin

    @property
    def recipe(self) -> Recipe:
        return self.values.recipe

    @property
    def graph(self) -> str:
        return self.values.graph

    def graphs(self, layout: Layout) -> tuple[ExportConfig, ...]:
        """Raise an error: only the described graph is known.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError

    @property
    def branches(self) -> tuple[ExportConfig, ...]:
        branches = self.values.branches
        return (self,) if branches is None else tuple(DescribedConfig(branch) for branch in branches)

    @property
    def prompt(self) -> ExportConfig:
        prompt = self.values.prompt
        return self if prompt is None else DescribedConfig(prompt)

    @property
    def start_token(self) -> int:
        return self.values.start_token

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self.values.inputs

    @property
    def own_outputs(self) -> tuple[TensorSpec, ...]:
        return self.values.outputs

    @property
    def limits(self) -> Mapping[str, Limit]:
        return self.values.limits

    @property
    def thresholds(self) -> Mapping[str, int]:
        return self.values.thresholds

    @property
    def trace_sizes(self) -> Mapping[str, int]:
        return self.values.trace_sizes

    @property
    def text_config(self) -> Any:
        return SimpleNamespace(**self.values.text)

    def tolerance(self, dtype: str) -> Tolerance:
        """Return the tolerance for the dtype of the description."""
        del dtype
        return self.values.tolerance
