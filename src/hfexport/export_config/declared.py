"""An interface as plain data: inferred from a model, or declared by a user's class."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, cast

from hfexport.export_config.base import ExportConfig, Limit, TensorSpec, Tolerance
from hfexport.export_config.recipe import InterfaceValues, Recipe
from hfexport.export_config.sentence import SentenceModules
from hfexport.export_config.tasks import Task

__all__ = ["DeclaredConfig", "Interface", "changed_config"]


@dataclass(frozen=True)
class Interface:
    """Inputs, outputs and further values that probes and back ends read from an export config.

    Attributes:
        origin: origin of the interface: `inferred from the model`, or `path/file.py:Class`.
        inputs: inputs in the artifact's order.
        outputs: outputs in the artifact's order.
        trace_sizes: sizes of the free axes in the traced example.
        limits: limits of the free axes that have any.
        thresholds: by axis, the size above which the model computes differently, such as an attention window.
        vocabulary_size: number of token ids; `None` if no input holds token ids.
        decoder_vocabulary_size: number of token ids of `decoder_input_ids`; `None` if it is `vocabulary_size`.
        image_tokens: number of placeholders at the start of inputs of role `image_text_ids`.
        samples: by input of role `sample`, an array as nested lists from which values are drawn.
        atol: absolute tolerance for fp32; `None` for hfexport's default.
        opset: default ONNX opset; `None` for hfexport's default.
        config_values: values of the model's config that replace those of the checkpoint.
    """

    origin: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    trace_sizes: Mapping[str, int]
    limits: Mapping[str, Limit] = field(default_factory=dict)
    thresholds: Mapping[str, int] = field(default_factory=dict)
    vocabulary_size: int | None = None
    decoder_vocabulary_size: int | None = None
    image_tokens: int = 0
    samples: Mapping[str, Any] = field(default_factory=dict)
    atol: float | None = None
    opset: int | None = None
    config_values: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> InterfaceValues:
        """Convert to JSON values that `from_dict` reads."""
        return cast("InterfaceValues", asdict(self))

    @classmethod
    def from_dict(cls, values: InterfaceValues) -> Interface:
        changed: dict[str, Any] = {
            "inputs": tuple(TensorSpec.from_dict(entry) for entry in values["inputs"]),
            "outputs": tuple(TensorSpec.from_dict(entry) for entry in values["outputs"]),
            "limits": {name: Limit(**limit) for name, limit in values["limits"].items()},
        }
        return cls(**{**values, **changed})


def changed_config(config: Any, values: Mapping[str, Any]) -> Any:
    """Return `config`, or a copy with `values` if there are any."""
    if all(getattr(config, name, None) == value for name, value in values.items()):
        return config
    changed = copy.deepcopy(config)
    for name, value in values.items():
        setattr(changed, name, value)
    return changed


class DeclaredConfig(ExportConfig):
    """Export config that returns the values of an `Interface`."""

    def __init__(
        self,
        config: Any,
        task: Task,
        interface: Interface,
        *,
        trust_remote_code: bool = False,
        sentence: SentenceModules | None = None,
    ) -> None:
        changed = changed_config(config, interface.config_values)
        super().__init__(changed, task, trust_remote_code=trust_remote_code, sentence=sentence)
        self.interface = interface
        if interface.opset is not None:
            self.default_opset = interface.opset

    def pooled(self, task: Task, sentence: SentenceModules) -> DeclaredConfig:
        """Return a config with the same inputs whose outputs are those of `sentence` applied to the bare model."""
        outputs = tuple(TensorSpec(name, axes, "float", "output") for name, axes in task.outputs.items())
        interface = replace(self.interface, outputs=outputs)
        return DeclaredConfig(self.config, task, interface, trust_remote_code=self.trust_remote_code, sentence=sentence)

    @property
    def origin(self) -> str:
        return self.interface.origin

    @property
    def recipe(self) -> Recipe:
        return {**super().recipe, "task": self.task.to_dict(), "interface": self.interface.to_dict()}

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self.interface.inputs

    @property
    def own_outputs(self) -> tuple[TensorSpec, ...]:
        return self.interface.outputs

    @property
    def limits(self) -> Mapping[str, Limit]:
        return self.interface.limits

    @property
    def thresholds(self) -> Mapping[str, int]:
        return self.interface.thresholds

    @property
    def trace_sizes(self) -> Mapping[str, int]:
        return self.interface.trace_sizes

    @property
    def vocabulary_size(self) -> int:
        return self.interface.vocabulary_size or super().vocabulary_size

    def vocabulary_of(self, name: str) -> int:
        own = self.interface.decoder_vocabulary_size if name == "decoder_input_ids" else None
        return own or self.vocabulary_size

    @property
    def image_tokens(self) -> int:
        return self.interface.image_tokens

    @property
    def samples(self) -> Mapping[str, Any]:
        return self.interface.samples

    def tolerance(self, dtype: str) -> Tolerance:
        default = super().tolerance(dtype)
        if self.interface.atol is None or dtype != "fp32":
            return default
        return Tolerance(self.interface.atol, default.rtol)
