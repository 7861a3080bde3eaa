"""Base of export configs: inputs and outputs of an architecture with named axes, and the limits of each axis.

Torch-free. Names of inputs, outputs and axes are those of `transformers.onnx` and Optimum.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self, cast

from hfexport.export_config.axes import Axis, names_of
from hfexport.export_config.recipe import Recipe, TensorValues
from hfexport.export_config.sentence import SentenceModules
from hfexport.export_config.tasks import Task

if TYPE_CHECKING:
    from hfexport.export_config.probes.probe import Probe
    from hfexport.export_config.probes.values import Padding

__all__ = ["LAYOUTS", "ExportConfig", "Layout", "Limit", "Part", "Role", "TensorSpec", "Tolerance"]

Layout = Literal["merged", "split", "single"]
"""Graphs that an encoder-decoder is exported as. `merged`: an encoder and one decoder that runs with and without cache;
`split`: encoder, decoder, and decoder with past; `single`: one graph for both."""

LAYOUTS: Final[tuple[Layout, ...]] = ("merged", "split", "single")

Part = Literal["model", "encoder", "decoder"]
"""Part of the model that a graph calls: the whole model, or one half of an encoder-decoder."""

Role = Literal[
    "token_ids",
    "sentence_ids",
    "image_text_ids",
    "attention_mask",
    "global_attention_mask",
    "token_type_ids",
    "language_ids",
    "category_ids",
    "position_ids",
    "boxes",
    "pixel_values",
    "pixel_mask",
    "past_key",
    "past_value",
    "cache_branch",
    "signal",
    "sample",
    "output",
]
"""Meaning of an input's values. In `sentence_ids` each row ends with its only end-of-sequence id. `image_text_ids`
start with one placeholder per image feature (`image_tokens`), followed by text. A `cache_branch` selects a branch of
the graph. A `signal` holds any real numbers, such as sound. A `sample` is drawn from given values."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, axes, dtype and role of one input or output.

    Attributes:
        name: name in every artifact.
        axes: shape; each axis is free (a name) or fixed (a size). Outputs may leave out trailing fixed axes.
        dtype: `int64`, `bool`, or `float` for the dtype of the export.
        role: meaning of the values, which decides how probes draw them.
    """

    name: str
    axes: tuple[Axis, ...]
    dtype: Literal["int64", "bool", "float"]
    role: Role

    def to_dict(self) -> TensorValues:
        """Convert to JSON values that `from_dict` reads."""
        return {"name": self.name, "axes": list(self.axes), "dtype": self.dtype, "role": self.role}

    @classmethod
    def from_dict(cls, values: TensorValues) -> TensorSpec:
        """Create from the result of `to_dict`."""
        return cls(values["name"], tuple(values["axes"]), cast("Any", values["dtype"]), cast("Role", values["role"]))


@dataclass(frozen=True)
class Limit:
    """Smallest and largest size of a free axis, both inclusive; a maximum of `None` means that the model sets none."""

    minimum: int = 1
    maximum: int | None = None

    @property
    def is_fixed(self) -> bool:
        return self.minimum == self.maximum


TOLERANCE_CAP: Final = 2e-2
"""Largest `atol` or `rtol` that is not marked as loose: hfexport's own tolerance for float16."""


@dataclass(frozen=True)
class Tolerance:
    """Elementwise tolerance: `|artifact - reference| <= atol + rtol * |reference|`.

    Raises:
        ValueError: a part is negative or not finite. With NaN or infinity every output would pass.
    """

    atol: float
    rtol: float

    def __post_init__(self) -> None:
        for name, value in (("atol", self.atol), ("rtol", self.rtol)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value}; it must be a finite number of at least 0, such as 1e-5")

    @property
    def is_loose(self) -> bool:
        """Return whether a part exceeds `TOLERANCE_CAP`.

        Artifacts that pass it are marked, and published only if named.
        """
        return self.atol > TOLERANCE_CAP or self.rtol > TOLERANCE_CAP


def _plain(outputs: Mapping[str, tuple[TensorSpec, ...]]) -> dict[str, list[TensorValues]]:
    """Convert `outputs` to JSON values."""
    return {graph: [spec.to_dict() for spec in specs] for graph, specs in outputs.items()}


class ExportConfig(ABC):
    """Base of all export configs.

    Args:
        config: the model's `PreTrainedConfig`, which adds the defaults that config.json leaves out.
        task: task to export for; one of `tasks`.
        trust_remote_code: the model's class is code from the checkpoint.
        sentence: modules that pool token embeddings after the model, for task `sentence-embedding`.
    """

    model_types: ClassVar[tuple[str, ...]] = ()
    """`model_type` values of config.json that this class describes; empty for a base class."""

    tasks: ClassVar[tuple[str, ...]] = ()
    """Names of the tasks that are tested for this architecture."""

    opsets: ClassVar[tuple[int, int]] = (17, 23)
    """Lowest and highest ONNX opset that are tested."""

    default_opset: int = 20

    fixed_paddings: ClassVar[tuple[Padding, ...]] = ("none", "right")
    """Paddings with which an artifact of fixed sizes is validated, if it has an attention mask."""

    part: ClassVar[Part] = "model"
    """Part of the model that the graph calls."""

    half_precision: ClassVar[bool] = True
    """Whether an fp16 checkpoint runs well in fp16. If not, `dtype: auto` widens it to fp32 without loss."""

    more_outputs: Mapping[str, tuple[TensorSpec, ...]] = MappingProxyType({})
    """Requested outputs besides those of the task, by graph, such as `attentions.0`."""

    fixed_sizes: Mapping[str, int] = MappingProxyType({})
    """Sizes that the user chose for free axes of the graph, see `hfexport.export_config.fixed`."""

    measured_positions: Mapping[str, int] = MappingProxyType({})
    """Numbers of positions measured on the model, see `with_measured_positions`."""

    changes_when_called: bool = False
    """Whether a call changes the model's later outputs. If so, the reference runs each call on a copy."""

    def __init__(
        self,
        config: Any,
        task: Task,
        *,
        trust_remote_code: bool = False,
        sentence: SentenceModules | None = None,
    ) -> None:
        self.config = config
        self.task = task
        self.trust_remote_code = trust_remote_code
        self.sentence = sentence

    @property
    def origin(self) -> str:
        """Return the origin of the interface, for the manifest and the log."""
        return "built in"

    @property
    def recipe(self) -> Recipe:
        """Return JSON values from which `builtin.restore_config` builds the same config in another process."""
        recipe: Recipe = {
            "model_type": self.config.model_type,
            "task": self.task.name,
            "trust_remote_code": self.trust_remote_code,
        }
        if self.sentence is not None:
            recipe["sentence"] = self.sentence.to_dict()
        if self.more_outputs:
            recipe["more_outputs"] = _plain(self.more_outputs)
        if self.measured_positions:
            recipe["positions"] = dict(self.measured_positions)
        return recipe

    @property
    def graph(self) -> str:
        """Return the name of the graph: its file name without the extension."""
        return "model"

    def graphs(self, layout: Layout) -> tuple[ExportConfig, ...]:
        """Return the graphs to export, in the order in which generation runs them; most architectures have one."""
        del layout
        return (self,)

    @property
    def branches(self) -> tuple[ExportConfig, ...]:
        """Return the graphs that this graph contains as branches; for most graphs, only the graph itself."""
        return (self,)

    @property
    def prompt(self) -> ExportConfig:
        """Return the graph that takes the prompt of a generation."""
        return self

    @property
    def start_token(self) -> int:
        """Return the first token of a decoder whose prompt goes to the encoder; other graphs do not use it."""
        return 0

    @property
    @abstractmethod
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Return the inputs in the artifact's order."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Return the outputs in the artifact's order."""
        own = self.own_outputs
        names = {spec.name for spec in own}
        return (*own, *(spec for spec in self.more_outputs.get(self.graph, ()) if spec.name not in names))

    def with_more_outputs(self, more_outputs: Mapping[str, tuple[TensorSpec, ...]]) -> Self:
        """Return a copy whose graphs also return `more_outputs`."""
        # Not copy.copy: some classes, such as that of Perceiver, choose a subclass when they are created.
        changed = object.__new__(type(self))
        vars(changed).update(vars(self))
        changed.more_outputs = more_outputs
        return changed

    def with_measured_positions(self, measured: Mapping[str, int]) -> ExportConfig:
        """Return a copy with other numbers of positions than its class computes from the model's config.

        Args:
            measured: number of positions by the name of the property that it replaces: `max_positions`,
                `max_encoder_positions` or `max_decoder_positions`.
        """
        kind = type(self)
        values = {"measured_positions": MappingProxyType(dict(measured)), **measured}
        # A subclass, because `graphs` of some classes makes further instances of its own class.
        changed: ExportConfig = object.__new__(type(kind.__name__, (kind,), values))
        vars(changed).update(vars(self))
        return changed

    @property
    def own_outputs(self) -> tuple[TensorSpec, ...]:
        """Return the outputs of the task itself."""
        return tuple(TensorSpec(name, axes, "float", "output") for name, axes in self.task.outputs.items())

    @property
    def limits(self) -> Mapping[str, Limit]:
        """Return the limits of the free axes that have any. An axis with equal bounds is fixed in the artifact."""
        return {}

    @property
    def thresholds(self) -> Mapping[str, int]:
        """Return, by axis, the size above which the model computes differently, such as an attention window."""
        return {}

    @property
    def auto_class(self) -> str:
        """Return the auto class of `transformers` that loads the model with this task's head."""
        return self.task.auto_class

    @property
    def model_kwargs(self) -> Mapping[str, Any]:
        """Return further arguments for building the model.

        The bare model is built without pooler, which is not an output.
        """
        return {}

    @property
    def text_config(self) -> Any:
        """Return the part of `config` that describes tokens: the whole config unless the model takes more than text."""
        return self.config

    @property
    def vocabulary_size(self) -> int:
        """Return the number of token ids; ids are 0 to this number less one."""
        return int(self.text_config.vocab_size)

    def vocabulary_of(self, name: str) -> int:
        """Return the number of token ids allowed in the input `name`.

        Encoder and decoder may have different vocabularies.
        """
        del name
        return self.vocabulary_size

    @property
    def image_tokens(self) -> int:
        """Return the number of image placeholders that a text with an image starts with.

        Their id is the config's `image_token_id`.
        """
        return 0

    @property
    def samples(self) -> Mapping[str, Any]:
        """Return an array (or nested lists) for each input of role `sample`, from which its values are drawn."""
        return {}

    def tolerance(self, dtype: str) -> Tolerance:
        """Return the default tolerance for `fp32` or `fp16` outputs."""
        return Tolerance(2e-5, 1e-4) if dtype == "fp32" else Tolerance(2e-2, 2e-2)

    @property
    @abstractmethod
    def trace_sizes(self) -> Mapping[str, int]:
        """Return the sizes of the free axes in the traced example. Axes that could be confused have different sizes."""

    def probes(self) -> list[Probe]:
        """Return probes of a shape-free artifact; `validation_probes` cuts their sizes to the limits."""
        from hfexport.export_config.probes.plans import axis_probes

        return axis_probes(self)

    def within_positions(self, sizes: Mapping[str, int], further_steps: int = 0) -> dict[str, int]:
        """Return sizes whose positions, with those of further decoding steps, the model has."""
        del further_steps
        return dict(sizes)

    @property
    def free_axes(self) -> tuple[str, ...]:
        """Return the names of the axes that are free in the artifact, in order of first use."""
        limits = self.limits
        return tuple(name for name in names_of(self.inputs) if not (name in limits and limits[name].is_fixed))
