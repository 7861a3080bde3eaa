"""`OnnxConfig` classes of the architectures that hfexport supports by name, generated from their export configs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

from hfexport.errors import UnsupportedError
from hfexport.export_config import DecoderConfig, ExportConfig
from hfexport.export_config.builtin import known_architectures
from hfexport.modeling.user_class import OnnxConfig, OnnxConfigWithPast
from hfexport.modeling.user_class.onnx_config import Axes, as_axes

__all__ = ["KnownOnnxConfig", "onnx_config_classes"]


class KnownOnnxConfig(OnnxConfig):
    """An `OnnxConfig` that takes its inputs and outputs from an architecture's export config.

    Raises:
        UnsupportedError: the architecture has no such task.
    """

    architecture: ClassVar[type[ExportConfig]]

    @property
    def export_config(self) -> ExportConfig:
        """The export config of the single graph that `transformers.onnx` wrote."""
        task = self.full_task
        if task.name not in self.architecture.tasks:
            raise UnsupportedError(
                f"task {task.name!r} is not supported for {self._config.model_type}",
                remedy=f"{self._config.model_type} has: {', '.join(self.architecture.tasks)}.",
            )
        return self.architecture(self._config, task).graphs("single")[0]

    @property
    def inputs(self) -> Mapping[str, Axes]:
        return as_axes(self.export_config.inputs)

    @property
    def outputs(self) -> Mapping[str, Axes]:
        return as_axes(self.export_config.outputs)

    @property
    def default_onnx_opset(self) -> int:
        return self.architecture.default_opset


class _KnownWithPast(KnownOnnxConfig, OnnxConfigWithPast):
    """A `KnownOnnxConfig` for decoders."""


@cache
def onnx_config_classes() -> dict[str, type[KnownOnnxConfig]]:
    """Create a class for each `model_type`, named after its config in transformers, such as `DistilBertOnnxConfig`."""
    from transformers import CONFIG_MAPPING

    made: dict[str, type[KnownOnnxConfig]] = {}
    for model_type, architecture in known_architectures().items():
        if model_type not in CONFIG_MAPPING:
            continue
        name = f"{CONFIG_MAPPING[model_type].__name__.removesuffix('Config')}OnnxConfig"
        with_past = any(task.endswith("-with-past") for task in architecture.tasks)
        base = _KnownWithPast if with_past or issubclass(architecture, DecoderConfig) else KnownOnnxConfig
        body: dict[str, Any] = {
            "architecture": architecture,
            "__module__": "hfexport.onnx",
            "__doc__": f"{model_type}: {', '.join(architecture.tasks)}.",
        }
        made[model_type] = type(name, (base,), body)
    return made
