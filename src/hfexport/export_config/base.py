"""What an architecture looks like from outside: its inputs and outputs with named axes, and how far each axis goes.

Torch-free. Names of inputs, outputs and axes are those of `transformers.onnx` and Optimum.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal, Self

from hfexport.export_config.axes import Axis, names_of
from hfexport.export_config.sentence import SentenceModules
from hfexport.export_config.tasks import Task

__all__ = ["LAYOUTS", "ExportConfig", "Layout", "Limit", "Part", "Role", "TensorSpec", "Tolerance"]

Layout = Literal["merged", "split", "single"]
"""An encoder-decoder's graphs. `merged`: encoder, and one decoder for both with and without cache; `split`: encoder,
decoder, and decoder with past; `single`: one graph for all."""

LAYOUTS: Final[tuple[Layout, ...]] = ("merged", "split", "single")

Part = Literal["model", "encoder", "decoder"]
"""What of a model a graph calls: all of it, or one half of an encoder-decoder."""

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
"""What an input's values mean. `sentence_ids` are token ids of which each row ends in its one end-of-sequence id;
`image_text_ids` begin with a placeholder for every feature of the image beside them (`image_tokens`), then there is text; a
`cache_branch` chooses between the branches of a graph; a `signal` is any real number, such as sound; a `sample` is drawn
from given values."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output.

    Attributes:
        name: its name in every artifact.
        axes: its shape, each axis free (a name) or fixed (a size). For outputs, trailing fixed axes may be left out.
        dtype: `int64`, `bool`, or `float` for whatever the export's dtype is.
        role: what the values mean, which is how probes are drawn.
    """

    name: str
    axes: tuple[Axis, ...]
    dtype: Literal["int64", "bool", "float"]
    role: Role


@dataclass(frozen=True)
class Limit:
    """Smallest and largest size of a free axis (both included); `None` where the model sets no upper bound."""

    minimum: int = 1
    maximum: int | None = None

    @property
    def is_fixed(self) -> bool:
        return self.minimum == self.maximum


TOLERANCE_CAP: Final = 2e-2
"""The largest `atol` or `rtol` that goes without a word: hfexport's own for float16."""


@dataclass(frozen=True)
class Tolerance:
    """`|artifact - reference| <= atol + rtol * |reference|`, elementwise.

    Raises:
        ValueError: a part is negative or not finite; within NaN or infinity nothing would ever be found wrong.
    """

    atol: float
    rtol: float

    def __post_init__(self) -> None:
        for name, value in (("atol", self.atol), ("rtol", self.rtol)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value}; it must be a finite number of at least 0, such as 1e-5")

    @property
    def is_loose(self) -> bool:
        """Whether a part is larger than `TOLERANCE_CAP`: what passes is then marked, and published only by name."""
        return self.atol > TOLERANCE_CAP or self.rtol > TOLERANCE_CAP


def _plain(outputs: Mapping[str, tuple[TensorSpec, ...]]) -> dict[str, list[dict[str, Any]]]:
    """`outputs` as JSON values."""
    return {graph: [{**vars(spec), "axes": list(spec.axes)} for spec in specs] for graph, specs in outputs.items()}


class ExportConfig(ABC):
    """Base of all export configs.

    Args:
        config: the model's `PreTrainedConfig`, which fills in what config.json leaves to defaults.
        task: what the model is exported for; one of `tasks`.
        trust_remote_code: the model's class is code that the checkpoint carries.
        sentence: what pools token embeddings behind the model, for task `sentence-embedding`.
    """

    model_types: ClassVar[tuple[str, ...]] = ()
    """`model_type` values of config.json that this class describes; empty for a base class."""

    tasks: ClassVar[tuple[str, ...]] = ()
    """Names of the tasks that are proved for this architecture."""

    opsets: ClassVar[tuple[int, int]] = (18, 23)
    """Lowest and highest ONNX opset proved."""

    default_opset: int = 20

    part: ClassVar[Part] = "model"
    """What of the model the graph calls."""

    half_precision: ClassVar[bool] = True
    """Whether an fp16 checkpoint is best run in fp16; where not, `dtype: auto` widens it to fp32, exactly."""

    more_outputs: Mapping[str, tuple[TensorSpec, ...]] = MappingProxyType({})
    """By graph: outputs that were asked for besides the task's own, such as `attentions.0`."""

    changes_when_called: bool = False
    """Whether the model answers otherwise after a call than before, so that the reference asks a copy each time."""

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
        """Where the interface comes from, for the manifest and the log."""
        return "built in"

    @property
    def recipe(self) -> Mapping[str, Any]:
        """JSON values from which `hfexport.export_config.builtin.restore_config` makes the same config in another process."""
        return {
            "model_type": self.config.model_type,
            "task": self.task.name,
            "trust_remote_code": self.trust_remote_code,
            **({} if self.sentence is None else {"sentence": self.sentence.to_dict()}),
            **({} if not self.more_outputs else {"more_outputs": _plain(self.more_outputs)}),
        }

    @property
    def graph(self) -> str:
        """Name of the graph, which is its file's without the ending."""
        return "model"

    def graphs(self, layout: Layout) -> tuple[ExportConfig, ...]:
        """The graphs to export, in the order in which generation runs them; most architectures are one."""
        del layout
        return (self,)

    @property
    def branches(self) -> tuple[ExportConfig, ...]:
        """The graphs that this one answers as, one at a time; most are one alone."""
        return (self,)

    @property
    def prompt(self) -> ExportConfig:
        """The graph that takes what generation starts from."""
        return self

    @property
    def start_token(self) -> int:
        """The first token of a decoder whose prompt is the encoder's; no other graph has a use for it."""
        return 0

    @property
    @abstractmethod
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs in the order in which an artifact takes them."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs in the order in which an artifact gives them."""
        own = self.own_outputs
        names = {spec.name for spec in own}
        return (*own, *(spec for spec in self.more_outputs.get(self.graph, ()) if spec.name not in names))

    def with_more_outputs(self, more_outputs: Mapping[str, tuple[TensorSpec, ...]]) -> Self:
        """The same, whose graphs also give `more_outputs`."""
        # Not copy.copy: a class may choose between others when it is made, as that of Perceiver does.
        changed = object.__new__(type(self))
        vars(changed).update(vars(self))
        changed.more_outputs = more_outputs
        return changed

    @property
    def own_outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs of the task itself."""
        return tuple(TensorSpec(name, axes, "float", "output") for name, axes in self.task.outputs.items())

    @property
    def limits(self) -> Mapping[str, Limit]:
        """Limits of free axes that have any; an axis with equal bounds is fixed in the artifact."""
        return {}

    @property
    def thresholds(self) -> Mapping[str, int]:
        """By axis, a size past which the model changes its way of computing, such as an attention window."""
        return {}

    @property
    def auto_class(self) -> str:
        """The auto class of `transformers` that loads the model with this task's head."""
        return self.task.auto_class

    @property
    def model_kwargs(self) -> Mapping[str, Any]:
        """Further arguments for building the model. The bare model's pooler is no output, so it is not built."""
        return {}

    @property
    def text_config(self) -> Any:
        """The part of `config` that tells of tokens: all of it, unless the model takes more than text."""
        return self.config

    @property
    def vocabulary_size(self) -> int:
        """Token ids go from 0 to one less than this."""
        return int(self.text_config.vocab_size)

    def vocabulary_of(self, name: str) -> int:
        """Number of token ids that the input `name` may hold; a decoder may have another vocabulary than its encoder."""
        del name
        return self.vocabulary_size

    @property
    def image_tokens(self) -> int:
        """Placeholders with which a text begins that has an image beside it; their id is the config's `image_token_id`."""
        return 0

    @property
    def samples(self) -> Mapping[str, Any]:
        """By input of role `sample`: an array (or nested lists) from which its values are drawn."""
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
        limits = self.limits
        return tuple(name for name in names_of(self.inputs) if not (name in limits and limits[name].is_fixed))
