"""Three base classes for a user's description of an architecture, compatible with `transformers.onnx`.

A class declares its inputs in order, each with its free axes; everything else has a default that it may override:

    class MyOnnxConfig(OnnxConfig):
        @property
        def inputs(self):
            return {"input_ids": {0: "batch", 1: "sequence"}, "attention_mask": {0: "batch", 1: "sequence"}}

Torch is imported only when dummy inputs are made.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Mapping, MutableMapping
from itertools import chain
from typing import Any, ClassVar, Self

from hfexport.errors import UnsupportedError
from hfexport.export_config import ExportConfig, TensorSpec
from hfexport.export_config.tasks import TASKS, Task

__all__ = ["Axes", "OnnxConfig", "OnnxConfigWithPast", "OnnxSeq2SeqConfigWithPast", "as_axes"]

Axes = Mapping[int, str]
"""Free axes of a tensor: names by index. Other axes have a fixed size."""

_PAST = "past_sequence"
_PRESENT = "past_sequence + sequence"


def as_axes(specs: Iterable[TensorSpec]) -> OrderedDict[str, dict[int, str]]:
    """Return the free axes of each tensor, by name."""
    return OrderedDict(
        (spec.name, {index: axis for index, axis in enumerate(spec.axes) if isinstance(axis, str)}) for spec in specs
    )


class OnnxConfig(ABC):
    """Base class for encoders and all other models that run in one call.

    Args:
        config: the model's `PreTrainedConfig`.
        task: task to export for, such as `sequence-classification`; decides the outputs.

    Raises:
        UnsupportedError: the task does not exist.
    """

    default_fixed_batch: ClassVar[int] = 2
    default_fixed_sequence: ClassVar[int] = 8
    default_fixed_num_choices: ClassVar[int] = 4

    def __init__(self, config: Any, task: str = "default") -> None:
        if task not in TASKS:
            raise UnsupportedError(f"task {task!r} is not known", remedy=f"Known are: {', '.join(TASKS)}.")
        self._config = config
        self.task = task

    @classmethod
    def from_model_config(cls, config: Any, task: str = "default") -> Self:
        return cls(config, task=task)

    @property
    @abstractmethod
    def inputs(self) -> Mapping[str, Axes]:
        """Return the inputs in the artifact's order, each with its free axes."""

    @property
    def outputs(self) -> Mapping[str, Axes]:
        """Return the outputs in the artifact's order, by the model's own output names."""
        outputs = TASKS[self.task].outputs
        return OrderedDict((name, dict(enumerate(axes))) for name, axes in outputs.items())

    @property
    def full_task(self) -> Task:
        """Return the task, in its form with a cache if there is one."""
        return TASKS[self.task]

    @property
    def default_onnx_opset(self) -> int:
        return ExportConfig.default_opset

    @property
    def atol_for_validation(self) -> float:
        """Return the absolute tolerance of validation for fp32."""
        return 1e-5

    @property
    def values_override(self) -> Mapping[str, Any] | None:
        """Return values of the model's config to set during the export."""
        return {"use_cache": False} if hasattr(self._config, "use_cache") else None

    @property
    def default_batch_size(self) -> int:
        return self.default_fixed_batch

    @property
    def default_sequence_length(self) -> int:
        return self.default_fixed_sequence

    @property
    def default_num_choices(self) -> int:
        return self.default_fixed_num_choices

    def generate_dummy_inputs(
        self,
        preprocessor: Any,
        batch_size: int = -1,
        seq_length: int = -1,
        num_choices: int = -1,
        is_pair: bool = False,
        framework: Any = None,
        **media: Any,
    ) -> Mapping[str, Any]:
        """Return arguments for the model's `forward`, made by its preprocessor.

        Args:
            preprocessor: a tokenizer, image processor or feature extractor.
            batch_size: number of rows; -1 for the default.
            seq_length: number of tokens per row, including special ones; -1 for the default.
            num_choices: number of choices for task `multiple-choice`; -1 for the default.
            is_pair: rows are pairs of sentences.
            framework: type of the arrays: `pt` or `np`.
            media: `num_channels`, `image_width`, `image_height`, `sampling_rate`, `time_duration`, `frequency`.

        Raises:
            ValueError: dummy inputs cannot be made with a preprocessor of this kind.
        """
        from hfexport.modeling.user_class.dummies import dummy_inputs

        return dummy_inputs(
            preprocessor,
            batch_size=batch_size if batch_size > 0 else self.default_batch_size,
            seq_length=seq_length if seq_length > 0 else self.default_sequence_length,
            num_choices=(num_choices if num_choices > 0 else self.default_num_choices)
            if self.task == "multiple-choice"
            else None,
            is_pair=is_pair,
            framework=framework,
            **media,
        )

    def flatten_output_collection_property(self, name: str, field: Iterable[Any]) -> dict[str, Any]:
        """Flatten a collection of the model's outputs to single tensors with an index."""
        return {f"{name}.{index}": item for index, item in enumerate(chain.from_iterable(field))}


class OnnxConfigWithPast(OnnxConfig):
    """Base class for decoders. If `use_past`, the key/value cache is an input and an output."""

    def __init__(self, config: Any, task: str = "default", use_past: bool = False) -> None:
        super().__init__(config, task)
        self.use_past = use_past

    @classmethod
    def with_past(cls, config: Any, task: str = "default") -> Self:
        return cls(config, task=task, use_past=True)

    @property
    def full_task(self) -> Task:
        name = f"{self.task}-with-past"
        if not self.use_past:
            return super().full_task
        if name not in TASKS:
            raise UnsupportedError(f"task {self.task!r} has no form with past", remedy="Set use_past=False.")
        return TASKS[name]

    @property
    def outputs(self) -> Mapping[str, Axes]:
        outputs = OrderedDict(super().outputs)
        if self.use_past:
            self.fill_with_past_key_values_(outputs, direction="outputs")
        return outputs

    @property
    def values_override(self) -> Mapping[str, Any] | None:
        return {"use_cache": self.use_past} if hasattr(self._config, "use_cache") else None

    @property
    def num_layers(self) -> Any:
        """Return the number of layers with a cache."""
        return int(getattr(self._config, "num_layers", None) or self._config.num_hidden_layers)

    @property
    def num_attention_heads(self) -> Any:
        """Return the number of heads in the cache; fewer than attention heads if queries share keys."""
        return int(getattr(self._config, "num_key_value_heads", None) or self._config.num_attention_heads)

    @property
    def head_size(self) -> int:
        config = self._config
        return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)

    def fill_with_past_key_values_(self, inputs_or_outputs: MutableMapping[str, Axes], direction: str) -> None:
        """Add the cache tensors to `inputs_or_outputs`.

        Args:
            inputs_or_outputs: mapping to extend.
            direction: `inputs` (`past_key_values.0.key`, …) or `outputs` (`present.0.key`, …).
        """
        name, axis = _direction(direction)
        for layer in range(self.num_layers):
            for part in ("key", "value"):
                inputs_or_outputs[f"{name}.{layer}.{part}"] = {0: "batch", 2: axis}

    def generate_dummy_inputs(self, preprocessor: Any, *args: Any, **kwargs: Any) -> Mapping[str, Any]:
        """Extend the base class's inputs, with past, by a cache that is two tokens longer than the new tokens."""
        made = dict(super().generate_dummy_inputs(preprocessor, *args, **kwargs))
        if self.use_past:
            from hfexport.modeling.user_class.dummies import dummy_cache

            past = made["input_ids"].shape[1] + 2
            dummy_cache(made, self.num_layers, (self.num_attention_heads, past, self.head_size))
        return made

    def flatten_output_collection_property(self, name: str, field: Iterable[Any]) -> dict[str, Any]:
        if name not in ("present", "past_key_values"):
            return super().flatten_output_collection_property(name, field)
        flat: dict[str, Any] = {}
        for layer, parts in enumerate(field):
            self._flatten_past_key_values_(flat, name, layer, parts)
        return flat

    def _flatten_past_key_values_(self, flat: dict[str, Any], name: str, layer: int, parts: Any) -> None:
        flat[f"{name}.{layer}.key"], flat[f"{name}.{layer}.value"] = parts[0], parts[1]


class OnnxSeq2SeqConfigWithPast(OnnxConfigWithPast):
    """Base class for encoder-decoders, whose cache holds keys and values of self-attention and cross-attention."""

    @property
    def outputs(self) -> Mapping[str, Axes]:
        outputs: MutableMapping[str, Axes] = OrderedDict()
        for name, axes in OnnxConfig.outputs.fget(self).items():  # type: ignore[attr-defined]
            side = "encoder_sequence" if "encoder" in name else "decoder_sequence"
            outputs[name] = {index: side if "sequence" in axis else axis for index, axis in axes.items()}
        if self.use_past:
            self.fill_with_past_key_values_(outputs, direction="outputs")
        return outputs

    @property
    def num_layers(self) -> tuple[int, int]:
        """Return the number of layers of the encoder and of the decoder."""
        config = self._config
        if hasattr(config, "encoder_layers") and hasattr(config, "decoder_layers"):
            return int(config.encoder_layers), int(config.decoder_layers)
        layers = int(config.num_layers)
        return layers, int(getattr(config, "num_decoder_layers", None) or layers)

    @property
    def num_attention_heads(self) -> tuple[int, int]:
        """Return the number of heads of the encoder and of the decoder."""
        config = self._config
        if hasattr(config, "encoder_attention_heads") and hasattr(config, "decoder_attention_heads"):
            return int(config.encoder_attention_heads), int(config.decoder_attention_heads)
        heads = int(config.num_attention_heads)
        return heads, heads

    @property
    def head_size(self) -> int:
        """Return the size of a decoder head."""
        config = self._config
        own = getattr(config, "d_kv", None) or getattr(config, "head_dim", None)
        return int(own or config.hidden_size // self.num_attention_heads[1])

    def fill_with_past_key_values_(self, inputs_or_outputs: MutableMapping[str, Axes], direction: str) -> None:
        name, _ = _direction(direction)
        decoder = "past_decoder_sequence" if direction == "inputs" else "past_decoder_sequence + sequence"
        for layer in range(self.num_layers[1]):
            for part in ("key", "value"):
                inputs_or_outputs[f"{name}.{layer}.decoder.{part}"] = {0: "batch", 2: decoder}
            for part in ("key", "value"):
                inputs_or_outputs[f"{name}.{layer}.encoder.{part}"] = {0: "batch", 2: "past_encoder_sequence"}

    def generate_dummy_inputs(self, preprocessor: Any, *args: Any, **kwargs: Any) -> Mapping[str, Any]:
        """Return the same inputs for encoder and decoder; with past, one new token and a cache."""
        made = dict(OnnxConfig.generate_dummy_inputs(self, preprocessor, *args, **kwargs))
        made |= {f"decoder_{name}": array for name, array in made.items() if name in ("input_ids", "attention_mask")}
        return made

    def _flatten_past_key_values_(self, flat: dict[str, Any], name: str, layer: int, parts: Any) -> None:
        names = ("decoder.key", "decoder.value", "encoder.key", "encoder.value")
        flat |= {f"{name}.{layer}.{part}": tensor for part, tensor in zip(names, parts, strict=True)}


def _direction(direction: str) -> tuple[str, str]:
    if direction not in ("inputs", "outputs"):
        raise ValueError(f"direction is {direction!r}: allowed are inputs, outputs")
    return ("past_key_values", _PAST) if direction == "inputs" else ("present", _PRESENT)
