"""Run a model without data to find names, shapes and dtypes of its outputs.

If the model's control flow depends on values, the checkpoint's weights are used instead.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.overrides import TorchFunctionMode
from transformers.cache_utils import DynamicCache

from hfexport._internal.upstream.torch_core import FakeTensorMode, TorchDispatchMode, tree_leaves
from hfexport.errors import MODEL_FAILURES, first_line
from hfexport.export_config import Axis, ExportConfig
from hfexport.modeling.load import filled_cache, quiet
from hfexport.modeling.wrappers import flat_model

__all__ = ["DryModel", "Given", "Refused", "axes_between"]

_Answer = TypeVar("_Answer")


class Refused(Exception):
    """The model rejected its inputs; the text is the model's error."""


@dataclass(frozen=True)
class Given:
    """Shape and dtype of one output tensor."""

    shape: tuple[int, ...]
    dtype: str


class DryModel:
    """A model whose weights are fake tensors.

    Args:
        build: builds the model with weights of the given fake mode.
        load: loads the model with real weights, for control flow that depends on values.
    """

    def __init__(self, build: Callable[[FakeTensorMode], torch.nn.Module], load: Callable[[], torch.nn.Module]) -> None:
        self._fake_mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._load = load
        with torch.no_grad():
            self.module = build(self._fake_mode)

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """Return the parameters of `forward` by name, in order."""
        return inspect.signature(self.module.forward).parameters

    @property
    def required(self) -> tuple[str, ...]:
        """Return the names of the parameters of `forward` without a default."""
        kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        return tuple(
            name
            for name, parameter in self.parameters.items()
            if parameter.default is parameter.empty and parameter.kind not in kinds
        )

    @property
    def takes_anything(self) -> bool:
        """Return whether `forward` names no parameter. Those of transformers pass unknown keywords on."""
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        return not any(parameter.kind in named for parameter in self.parameters.values())

    @cached_property
    def _loaded(self) -> torch.nn.Module:
        return self._load()

    def run(self, arrays: Mapping[str, NDArray[Any]], *, use_cache: bool = False) -> dict[str, Given]:
        """Run the model and return its outputs in its own order; a cache as `present.{layer}.{key,value}`.

        Args:
            arrays: arrays by input name; `past_key_values.{layer}.{key,value}` become the cache.
            use_cache: request the cache.

        Raises:
            Refused: the model rejects the inputs.
        """
        return self._on_either(lambda module: self._call(module, self._tensors(arrays), use_cache))

    def takes(self, arrays: Mapping[str, NDArray[Any]]) -> bool:
        """Return whether the model with real weights runs on `arrays`; matrix products are skipped to save time.

        A run without data does not look up table rows, and so misses indices past the end of a table.
        """
        tensors = self._tensors(arrays)
        try:
            with torch.no_grad(), quiet(), _WithoutProducts():
                self._call(self._loaded, tensors, any("past_key_values." in name for name in tensors))
        except MODEL_FAILURES:
            return False
        return True

    def uses(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> bool:
        """Return whether a run computes anything from the input `name`; some models accept inputs that they ignore.

        Raises:
            Refused: the model rejects the inputs.
        """

        def watched(module: torch.nn.Module) -> bool:
            tensors = self._tensors(arrays)
            watch = _Watch(tensors[name])
            with watch:
                self._call(module, tensors, use_cache=False)
            return watch.seen

        return self._on_either(watched)

    def image_features(self, shape: Sequence[int]) -> int:
        """Return the number of features in a text for one image of `shape` (channels, height, width), or 0."""
        features = getattr(self.module, "get_image_features", None)
        if features is None:
            return 0
        with self._fake_mode, torch.no_grad(), quiet(), _unlogged():
            try:
                given = features(torch.zeros(1, *shape, dtype=self._dtype))
            except MODEL_FAILURES:
                return 0
        found = getattr(given, "pooler_output", given)
        (of_one,) = found if len(found) == 1 else (found,)
        return len(of_one) if isinstance(of_one, torch.Tensor) and of_one.ndim == 2 else 0

    def _on_either(self, ask: Callable[[torch.nn.Module], _Answer]) -> _Answer:
        """Run `ask` on the model without data, or on the loaded model if that fails."""
        try:
            with self._fake_mode, torch.no_grad(), quiet(), _unlogged():
                return ask(self.module)
        except MODEL_FAILURES:
            # The run needs a value, or an operator without a fake implementation: use the real weights.
            pass
        try:
            with torch.no_grad(), quiet():
                return ask(self._loaded)
        except MODEL_FAILURES as error:
            raise Refused(first_line(error, named=True)) from error

    def run_graph(self, config: ExportConfig, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Given]:
        """Run the graph of `config` and return its outputs in order.

        Raises:
            Refused: the model rejects the inputs.
        """
        names = [spec.name for spec in config.outputs]
        try:
            with self._fake_mode, torch.no_grad(), quiet(), _unlogged():
                given = flat_model(self.module, config)(*self._tensors(arrays).values())
        except MODEL_FAILURES as error:
            raise Refused(first_line(error, named=True)) from error
        return {name: _given(tensor) for name, tensor in zip(names, given, strict=True)}

    def run_further(
        self, config: ExportConfig, arrays: Mapping[str, NDArray[Any]], kinds: Sequence[str]
    ) -> dict[str, Given]:
        """Run the graph of `config` and return its outputs of `kinds` (`attentions`, `hidden_states`) by name.

        Raises:
            Refused: the model rejects the inputs, or cannot return these outputs.
        """

        def ask(module: torch.nn.Module) -> dict[str, Given]:
            flat = flat_model(module, config)
            flat.further = {f"output_{kind}": True for kind in kinds}
            outputs = flat.answer(*self._tensors(arrays).values())
            return {
                name: given for name, given in _flat(outputs).items() if name.partition(".")[0].endswith(tuple(kinds))
            }

        return self._on_either(ask)

    def _tensors(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, torch.Tensor]:
        """Convert arrays to tensors like the inputs of an export: real numbers get the dtype of the weights."""
        tensors = {name: torch.tensor(array) for name, array in arrays.items()}
        return {
            name: tensor.to(self._dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
        }

    @cached_property
    def _dtype(self) -> torch.dtype:
        floating = (weight.dtype for weight in self.module.parameters() if weight.is_floating_point())
        return next(floating, torch.float32)

    def _call(self, module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], use_cache: bool) -> dict[str, Given]:
        cache = [tensor for name, tensor in tensors.items() if name.startswith("past_key_values.")]
        arguments: dict[str, Any] = {name: tensor for name, tensor in tensors.items() if "past_key_values." not in name}
        if cache:
            arguments["past_key_values"] = filled_cache(cache)
        if "use_cache" in self.parameters:
            arguments["use_cache"] = use_cache
        return _flat(module(**arguments, return_dict=True))


class _WithoutProducts(TorchFunctionMode):
    """Replace linear layers by zeros of the right shape."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        if func is torch.nn.functional.linear and len(args) >= 2:
            states, weight = args[:2]
            return states.new_zeros((*states.shape[:-1], weight.shape[0]))
        return func(*args, **(kwargs or {}))


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Search the operands of all operators for one tensor. The base class in torch is untyped."""

    def __init__(self, tensor: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tensor = tensor
        self.seen = False

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        self.seen = self.seen or any(leaf is self._tensor for leaf in tree_leaves((args, kwargs)))
        return func(*args, **(kwargs or {}))


@contextmanager
def _unlogged() -> Iterator[None]:
    """Silence torch's log messages about operations that fail in a fake run; they are raised anyway.

    Torch may set the levels of its loggers while the run imports further modules, so the logger is disabled instead.
    """
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = disabled


def _flat(outputs: Any) -> dict[str, Given]:
    found: dict[str, Given] = {}
    for name, value in outputs.items() if isinstance(outputs, Mapping) else ():
        if isinstance(value, torch.Tensor):
            found[name] = _given(value)
        elif isinstance(value, tuple) and all(isinstance(part, torch.Tensor) for part in value):
            found |= {f"{name}.{index}": _given(part) for index, part in enumerate(value)}
        elif isinstance(value, DynamicCache):
            for layer, cached in enumerate(value.layers):
                for part in ("keys", "values"):
                    if isinstance(tensor := getattr(cached, part, None), torch.Tensor):
                        found[f"present.{layer}.{part.removesuffix('s')}"] = _given(tensor)
    return found


def _given(tensor: torch.Tensor) -> Given:
    return Given(tuple(int(size) for size in tensor.shape), str(tensor.dtype).removeprefix("torch."))


def axes_between(
    one: Sequence[int], one_sizes: Mapping[str, int], other: Sequence[int], other_sizes: Mapping[str, int]
) -> tuple[Axis | None, ...]:
    """Compare a tensor's shapes `one` at `one_sizes` and `other` at `other_sizes`, and return its axes.

    Returns:
        For each axis: its size if it is constant, the name of the free axis that it equals, `a + b` for a sum of two,
            or `None` for any other relation.
    """
    return tuple(_axis(a, one_sizes, b, other_sizes) for a, b in zip(one, other, strict=True))


def _axis(a: int, one: Mapping[str, int], b: int, other: Mapping[str, int]) -> Axis | None:
    if a == b:
        return a
    for name in one:
        if (a, b) == (one[name], other[name]):
            return name
    for left, right in combinations(sorted(one, key=lambda name: "past" not in name), 2):
        if (a, b) == (one[left] + one[right], other[left] + other[right]):
            return f"{left} + {right}"
    return None


def as_array(tensor: Any) -> NDArray[Any]:
    """Convert a torch tensor or any array-like value to a numpy array."""
    return tensor.detach().numpy() if isinstance(tensor, torch.Tensor) else np.asarray(tensor)
