"""What an architecture looks like from outside: its inputs and outputs with named axes, and how far each axis goes.

Torch-free. One small file in `hfexport.architectures` subclasses one of the three bases here for each architecture.
Names of inputs, outputs and axes are those of `transformers.onnx` and Optimum.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from hfexport.tasks import Task

__all__ = [
    "Axis",
    "DecoderConfig",
    "EncoderConfig",
    "ExportConfig",
    "Limit",
    "TensorSpec",
    "Tolerance",
    "VisionConfig",
    "axis_size",
]

Axis = str | int
"""A free axis by its name, a sum of free axes such as `past_sequence + sequence`, or a fixed size."""

Role = Literal[
    "token_ids", "attention_mask", "token_type_ids", "position_ids", "pixel_values", "past_key", "past_value", "output"
]

TOTAL = "past_sequence + sequence"

_CACHE_PARTS: tuple[tuple[str, Role], ...] = (("key", "past_key"), ("value", "past_value"))


@dataclass(frozen=True)
class TensorSpec:
    """One input or output.

    Attributes:
        name: its name in every artifact.
        axes: its shape, each axis free (a name) or fixed (a size). For outputs, trailing fixed axes may be left out.
        dtype: `int64`, or `float` for whatever the export's dtype is.
        role: what the values mean, which is how probes are drawn.
    """

    name: str
    axes: tuple[Axis, ...]
    dtype: Literal["int64", "float"]
    role: Role


@dataclass(frozen=True)
class Limit:
    """Smallest and largest size of a free axis (both included); `None` where the model sets no upper bound."""

    minimum: int = 1
    maximum: int | None = None

    @property
    def is_fixed(self) -> bool:
        return self.minimum == self.maximum


@dataclass(frozen=True)
class Tolerance:
    """`|artifact - reference| <= atol + rtol * |reference|`, elementwise."""

    atol: float
    rtol: float


def axis_size(axis: Axis, sizes: Mapping[str, int]) -> int:
    """The size of `axis` where the free axes have `sizes`."""
    if isinstance(axis, int):
        return axis
    return sum(sizes[name] for name in axis.split(" + "))


class ExportConfig(ABC):
    """Base of all export configs.

    Args:
        config: the model's `PreTrainedConfig`, which fills in what config.json leaves to defaults.
        task: what the model is exported for; one of `tasks`.
    """

    model_types: ClassVar[tuple[str, ...]] = ()
    """`model_type` values of config.json that this class describes; empty for a base class."""

    tasks: ClassVar[tuple[str, ...]] = ()
    """Names of the tasks that are proved for this architecture."""

    opsets: ClassVar[tuple[int, int]] = (18, 23)
    """Lowest and highest ONNX opset proved."""

    default_opset: ClassVar[int] = 20

    def __init__(self, config: Any, task: Task) -> None:
        self.config = config
        self.task = task

    @property
    @abstractmethod
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs in the order in which an artifact takes them."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs in the order in which an artifact gives them."""
        return tuple(TensorSpec(name, axes, "float", "output") for name, axes in self.task.outputs.items())

    @property
    def limits(self) -> Mapping[str, Limit]:
        """Limits of free axes that have any; an axis with equal bounds is fixed in the artifact."""
        return {}

    @property
    def model_kwargs(self) -> Mapping[str, Any]:
        """Further arguments for building the model. The bare model's pooler is no output, so it is not built."""
        return {}

    def tolerance(self, dtype: str) -> Tolerance:
        """Default tolerance for `fp32` or `fp16` outputs."""
        return Tolerance(2e-5, 1e-4) if dtype == "fp32" else Tolerance(2e-2, 2e-2)

    @property
    @abstractmethod
    def trace_sizes(self) -> Mapping[str, int]:
        """Sizes of the free axes in the example that export traces; no two that could be confused are equal."""

    @property
    def free_axes(self) -> tuple[str, ...]:
        """Names of the axes that an artifact leaves open, in order of first use."""
        names = [
            part for spec in self.inputs for axis in spec.axes if isinstance(axis, str) for part in axis.split(" + ")
        ]
        limits = self.limits
        return tuple(name for name in dict.fromkeys(names) if not (name in limits and limits[name].is_fixed))


class EncoderConfig(ExportConfig):
    """Encoders of text: token ids, an attention mask, and token types where the model tells segments apart."""

    token_types: ClassVar[bool] = False

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        axes: tuple[Axis, ...] = ("batch", "sequence")
        if self.task.name == "multiple-choice":
            axes = ("batch", "choice", "sequence")
        specs = [
            TensorSpec("input_ids", axes, "int64", "token_ids"),
            TensorSpec("attention_mask", axes, "int64", "attention_mask"),
        ]
        if self.token_types:
            specs.append(TensorSpec("token_type_ids", axes, "int64", "token_type_ids"))
        return tuple(specs)

    @property
    def max_positions(self) -> int | None:
        """The longest sequence the position table holds; `None` where positions are relative."""
        return int(self.config.max_position_embeddings)

    @property
    def limits(self) -> Mapping[str, Limit]:
        return {"sequence": Limit(1, self.max_positions)}

    @property
    def trace_sizes(self) -> Mapping[str, int]:
        return {"batch": 2, "choice": 3, "sequence": min(7, self.max_positions or 7)}


class DecoderConfig(ExportConfig):
    """Decoders of text. With past, one graph takes a cache of any length, 0 (a prefill) included."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        with_past, language_model = self.task.with_past, self.task.name.startswith("causal-lm")
        mask_axis = TOTAL if with_past else "sequence"
        specs = [
            TensorSpec("input_ids", ("batch", "sequence"), "int64", "token_ids"),
            TensorSpec("attention_mask", ("batch", mask_axis), "int64", "attention_mask"),
        ]
        if with_past or language_model:
            # Positions follow the mask under left padding; only the caller knows it when the cache holds the rest.
            specs.append(TensorSpec("position_ids", ("batch", "sequence"), "int64", "position_ids"))
        if with_past:
            specs.extend(self._cache("past_key_values", "past_sequence"))
        return tuple(specs)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        cache = self._cache("present", TOTAL) if self.task.with_past else ()
        return (*super().outputs, *(TensorSpec(spec.name, spec.axes, "float", "output") for spec in cache))

    def _cache(self, prefix: str, length: str) -> tuple[TensorSpec, ...]:
        axes: tuple[Axis, ...] = ("batch", self.cache_heads, length, self.head_size)
        return tuple(
            TensorSpec(f"{prefix}.{layer}.{part}", axes, "float", role)
            for layer in range(self.config.num_hidden_layers)
            for part, role in _CACHE_PARTS
        )

    @property
    def cache_heads(self) -> int:
        """Heads in the cache: fewer than attention heads where queries share keys (grouped-query attention)."""
        return int(getattr(self.config, "num_key_value_heads", None) or self.config.num_attention_heads)

    @property
    def head_size(self) -> int:
        return int(getattr(self.config, "head_dim", None) or self.config.hidden_size // self.config.num_attention_heads)

    @property
    def max_positions(self) -> int:
        return int(self.config.max_position_embeddings)

    @property
    def limits(self) -> Mapping[str, Limit]:
        limits = {"sequence": Limit(1, self.max_positions), "past_sequence": Limit(0, self.max_positions - 1)}
        if self.task.name == "sequence-classification" and self.config.pad_token_id is None:
            # Without a padding token transformers cannot tell where a row of a batch ends, and refuses batches.
            limits["batch"] = Limit(1, 1)
        return limits

    @property
    def trace_sizes(self) -> Mapping[str, int]:
        batch = 1 if "batch" in self.limits else 2
        return {"batch": batch, "sequence": 3 if self.task.with_past else 7, "past_sequence": 5}


class VisionConfig(ExportConfig):
    """Image models: `pixel_values` as (batch, channels, height, width)."""

    free_image_size: ClassVar[bool] = False
    """Whether height and width may differ from the configured size (fully convolutional models)."""

    min_image_size: ClassVar[int] = 1
    """Smallest height and width, in pixels, where they are free."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        height, width = self.image_size
        size: tuple[Axis, Axis] = ("height", "width") if self.free_image_size else (height, width)
        return (TensorSpec("pixel_values", ("batch", self.config.num_channels, *size), "float", "pixel_values"),)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        # The task's `sequence` axis is one of text; an image model's is fixed or follows from the image's size.
        return tuple(TensorSpec(name, ("batch",), "float", "output") for name in self.task.outputs)

    @property
    def image_size(self) -> tuple[int, int]:
        """Configured (height, width) in pixels."""
        size = getattr(self.config, "image_size", 224)
        return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))

    @property
    def limits(self) -> Mapping[str, Limit]:
        if not self.free_image_size:
            return {}
        return {"height": Limit(self.min_image_size), "width": Limit(self.min_image_size)}

    @property
    def trace_sizes(self) -> Mapping[str, int]:
        height, width = self.image_size
        return {"batch": 2, "height": height, "width": width}
