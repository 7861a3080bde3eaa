"""Convert a user's `OnnxConfig` to an export config; errors name the class and the field."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from hfexport.errors import MODEL_FAILURES
from hfexport.export_config import (
    Axis,
    DeclaredConfig,
    DeclaredSeq2Seq,
    Interface,
    Limit,
    Role,
    TensorSpec,
    names_in,
    names_of,
)
from hfexport.modeling.inferred.dry_run import DryModel, Refused, as_array
from hfexport.modeling.inferred.measure import (
    fix_refused_axes,
    measured_outputs,
    position_limit,
    thresholds,
    trace_sizes,
    vocabulary_size,
)
from hfexport.modeling.user_class.adapt_seq2seq import declare_seq2seq
from hfexport.modeling.user_class.onnx_config import OnnxConfig, OnnxSeq2SeqConfigWithPast
from hfexport.modeling.user_class.properties import Properties

__all__ = ["declare", "overrides"]

ROLES: Final[Mapping[str, Role]] = {
    "input_ids": "token_ids",
    "attention_mask": "attention_mask",
    "decoder_input_ids": "token_ids",
    "decoder_attention_mask": "attention_mask",
    "token_type_ids": "token_type_ids",
    "position_ids": "position_ids",
    "pixel_values": "pixel_values",
}
"""Inputs whose values hfexport draws itself; values of all others come from the class's dummy inputs."""

_CACHE: Final = re.compile(r"past_key_values\.(\d+)\.(key|value)")
_FIXED_IN_EVERY_MODEL: Final = ("num_channels", "channels")
"""Axes that classes of `transformers.onnx` declare as free although a model's weights fix them."""


def declare(
    own: OnnxConfig,
    origin: str,
    dry: DryModel,
    preprocessor: Callable[[], Any],
    *,
    images: tuple[int, int, int] = (3, 224, 224),
    trust_remote_code: bool = False,
) -> DeclaredConfig | DeclaredSeq2Seq:
    """Return the export config that `own` describes.

    Args:
        own: instance of the user's class.
        origin: name of the class in messages and in the manifest: `path/file.py:Class`.
        dry: model without data.
        preprocessor: returns the checkpoint's tokenizer or processor; called only if the class's dummy inputs are
            needed.
        images: (channels, height, width) of the model's images, unless the class makes its own dummy inputs.
        trust_remote_code: the model's class is code from the checkpoint.

    Raises:
        InputsError: the class contradicts itself or the model.
    """
    if isinstance(own, OnnxSeq2SeqConfigWithPast) and own.use_past:
        return declare_seq2seq(own, origin, dry, trust_remote_code=trust_remote_code)
    reader = _Reader(own, origin, dry, preprocessor, images)
    specs = reader.inputs()
    limit = position_limit(dry.module, own._config)
    tokens = [str(spec.axes[-1]) for spec in specs if spec.role == "token_ids"]
    limits = {} if limit is None else {axis: Limit(1, limit) for axis in tokens}
    with_past = own.full_task.with_past
    if with_past:
        limits["past_sequence"] = Limit(0, None if limit is None else limit - 1)
    interface = Interface(
        origin=origin,
        inputs=specs,
        outputs=(),
        trace_sizes=trace_sizes(specs, reader.known_sizes, limits),
        limits=limits,
        thresholds=thresholds(own._config, "past_sequence" if with_past else "".join(tokens[:1]), limit),
        vocabulary_size=vocabulary_size(dry.module, own._config),
        samples=reader.samples(specs),
        atol=reader.number("atol_for_validation"),
        opset=int(reader.number("default_onnx_opset")),
        config_values=reader.config_values(),
    )
    config = DeclaredConfig(own._config, own.full_task, interface, trust_remote_code=trust_remote_code)
    try:
        config = fix_refused_axes(dry, config)
        given = measured_outputs(dry, config)
    except (Refused, ValueError, LookupError) as error:
        raise reader.wrong("inputs", f"the model does not take them: {error}") from error
    interface = replace(config.interface, outputs=reader.outputs(given, config))
    return DeclaredConfig(own._config, own.full_task, interface, trust_remote_code=trust_remote_code)


class _Reader(Properties):
    """Read the inputs and outputs of a user's class."""

    def __init__(
        self,
        own: OnnxConfig,
        origin: str,
        dry: DryModel,
        preprocessor: Callable[[], Any],
        images: tuple[int, int, int],
    ) -> None:
        super().__init__(own, origin)
        self._dry = dry
        self._preprocessor = preprocessor
        self._images = images
        self._dummies: dict[str, Any] | None = None
        self.known_sizes: dict[str, int] = {}

    def inputs(self) -> tuple[TensorSpec, ...]:
        declared = self.axes("inputs")
        taken = self._dry.parameters
        for name in declared:
            parameter = name.partition(".")[0]
            if parameter not in taken and not self._dry.takes_anything:
                model, known = type(self._dry.module).__name__, ", ".join(taken)
                raise self.wrong("inputs", f"{name!r} is nothing that {model}.forward takes: {known}")
        missing = [name for name in self._dry.required if name not in {key.partition(".")[0] for key in declared}]
        if missing:
            raise self.wrong("inputs", f"{type(self._dry.module).__name__}.forward also needs {', '.join(missing)}")
        return tuple(self._input(name, axes) for name, axes in declared.items())

    def _input(self, name: str, axes: Mapping[int, str]) -> TensorSpec:
        if cached := _CACHE.fullmatch(name):
            return self._cached(name, axes, cached[2])
        if name.startswith("past_key_values."):
            raise self.wrong("inputs", f"{name!r}: the cache of an encoder-decoder cannot be declared by a class")
        role = ROLES.get(name, "sample")
        if role == "pixel_values" and not self._makes_dummies:
            return TensorSpec(name, self._shape(name, axes, (2, *self._images)), "float", role)
        if role in ("sample", "pixel_values"):
            array = self._dummy(name)
            shape = self._shape(name, axes, array.shape)
            return TensorSpec(name, shape, "float" if array.dtype.kind == "f" else "int64", role)
        if sorted(axes) != list(range(len(axes))) or not axes:
            raise self.wrong("inputs", f"{name!r} names axes {sorted(axes)}: tokens have no axis of a fixed size")
        rank = 3 if self._own.task == "multiple-choice" else 2
        if len(axes) != rank:
            raise self.wrong("inputs", f"{name!r} has {len(axes)} axes; the model takes {rank}")
        return TensorSpec(name, tuple(axes[index] for index in range(rank)), "int64", role)

    def _cached(self, name: str, axes: Mapping[int, str], part: str) -> TensorSpec:
        heads, size = self.read("num_attention_heads"), self.read("head_size")
        if sorted(axes) != [0, 2]:
            raise self.wrong("inputs", f"{name!r} names axes {sorted(axes)}; of a cache, 0 and 2 are free")
        return TensorSpec(
            name, (axes[0], heads, "past_sequence", size), "float", "past_key" if part == "key" else "past_value"
        )

    @property
    def _makes_dummies(self) -> bool:
        return overrides(type(self._own), "generate_dummy_inputs")

    def _shape(self, name: str, axes: Mapping[int, str], shape: tuple[int, ...]) -> tuple[Axis, ...]:
        """Return `shape` with names for its free axes, and record their sizes, since the model may accept no others."""
        if max(axes, default=0) >= len(shape):
            raise self.wrong("inputs", f"{name!r} names axis {max(axes)}, but it has {len(shape)} axes")
        free = {index: axis for index, axis in axes.items() if axis not in _FIXED_IN_EVERY_MODEL}
        self.known_sizes |= {axis: shape[index] for index, axis in free.items() if index > 0}
        return tuple(free.get(index, size) for index, size in enumerate(shape))

    def _dummy(self, name: str) -> Any:
        """Return one of the class's dummy inputs as an array."""
        if self._dummies is None:
            try:
                made = self._own.generate_dummy_inputs(self._preprocessor(), framework="pt")
            except MODEL_FAILURES as error:
                raise self.wrong("generate_dummy_inputs", f"raises {type(error).__name__}: {error}") from error
            self._dummies = dict(made)
        if name not in self._dummies:
            given = ", ".join(self._dummies) or "nothing"
            raise self.wrong("generate_dummy_inputs", f"gives no {name!r}, which is an input; it gives {given}")
        return as_array(self._dummies[name])

    def samples(self, specs: tuple[TensorSpec, ...]) -> dict[str, Any]:
        return {spec.name: self._dummy(spec.name).tolist() for spec in specs if spec.role == "sample"}

    def outputs(self, given: tuple[TensorSpec, ...], config: DeclaredConfig) -> tuple[TensorSpec, ...]:
        """Return the declared outputs, each with its measured axes."""
        by_name = {spec.name: spec for spec in given}
        declared = self.axes("outputs")
        overridden = overrides(type(self._own), "outputs")
        free = frozenset(names_of(config.inputs))
        for name, axes in declared.items():
            if name not in by_name:
                model = type(self._dry.module).__name__
                raise self.wrong("outputs", f"{name!r} is nothing that {model} gives: {', '.join(by_name)}")
            if overridden:
                self._check_axes(name, axes, by_name[name], free)
        return tuple(by_name[name] for name in declared)

    def _check_axes(self, name: str, axes: Mapping[int, str], found: TensorSpec, free: frozenset[str]) -> None:
        for index, axis in axes.items():
            unknown = [part for part in names_in(axis) if part not in free]
            if unknown:
                raise self.wrong(
                    "outputs", f"axis {index} of {name!r} is called {axis!r}, and no input has an axis {unknown[0]!r}"
                )
            if index < len(found.axes) and found.axes[index] != axis:
                raise self.wrong(
                    "outputs", f"axis {index} of {name!r} is called {axis!r}; in the model it is {found.axes[index]!r}"
                )


def overrides(cls: type, field: str) -> bool:
    """Return whether `field` is defined by a user's class (`cls` or a base of it) rather than by hfexport."""
    module = next(base.__module__ for base in cls.__mro__ if field in vars(base))
    return module.partition(".")[0] != "hfexport"
