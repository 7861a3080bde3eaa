"""Load `transformers` models with the checkpoint's weights or without data, and wrap them as flat-tensor modules.

Used by the back ends and by the reference, each in its own process.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import torch
import transformers
from safetensors import SafetensorError
from transformers.cache_utils import DynamicCache, DynamicLayer

from hfexport._internal.room import STAGING_PREFIX
from hfexport._internal.upstream.models import attention_of, from_config
from hfexport.errors import CheckpointError, UnsupportedError
from hfexport.modeling.kept_dtypes import convert_routers, keep_dtypes
from hfexport.modeling.untrusted_config import BUILD_FAILURES, bounded, refuse_implausible

if TYPE_CHECKING:
    from hfexport._internal.upstream.torch_core import FakeTensorMode
    from hfexport.export_config import ExportConfig

__all__ = [
    "FlatModel",
    "empty_like",
    "empty_model",
    "filled_cache",
    "further_arguments",
    "load_model",
    "load_names",
    "model_without_data",
    "named_output",
    "plain",
    "quiet",
    "tied_names",
    "torch_dtype",
]


_TIMM: Final = (
    " Or save the checkpoint with a backbone of transformers itself (`backbone_config` of model_type resnet and the like);"
    " some published ones have that as revision no_timm."
)


def torch_dtype(name: str) -> torch.dtype:
    """Return `fp16`, `fp32` or `fp64` as a torch dtype."""
    return {"fp16": torch.float16, "fp32": torch.float32, "fp64": torch.float64}[name]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence load reports, progress bars and deprecation warnings of torch and transformers."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def load_model(folder: Path, config: ExportConfig, dtype: str) -> torch.nn.Module:
    """Load the model with weights mapped from the checkpoint's safetensors, in eval mode with eager attention.

    Raises:
        CheckpointError: a tensor's shape contradicts the model's config, or no model can be built from the config.
        UnsupportedError: the checkpoint lacks weights that the task needs, or a package that the model needs is not
            installed.
    """
    auto_class = getattr(transformers, config.auto_class)
    with quiet(), _packages_at_hand(config):
        refuse_implausible(folder, lambda: _on_meta(config, dtype))
        try:
            model, info = auto_class.from_pretrained(
                folder,
                config=config.config,
                dtype=torch_dtype(dtype),
                attn_implementation="eager",
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                trust_remote_code=config.trust_remote_code,
                **_model_kwargs(auto_class, config),
            )
        except (OSError, SafetensorError, *BUILD_FAILURES) as error:
            raise CheckpointError(
                f"{_shown(folder)}: transformers cannot load it as {config.auto_class}: {error}",
                remedy="Check that config.json belongs to these weights.",
            ) from error
    _refuse_partial_load(folder, config, info)
    convert_routers(model)
    return model.eval()  # type: ignore[no-any-return]


def _shown(folder: Path) -> str:
    """Return the folder's name for messages; staging folders, which the user does not know, are left out."""
    return "the checkpoint" if any(part.startswith(STAGING_PREFIX) for part in folder.parts) else str(folder)


def load_names(folder: Path, config: ExportConfig) -> set[str]:
    """Return the names of the weights that `load_model` would find missing, without reading any weight."""
    auto_class = getattr(transformers, config.auto_class)
    with quiet(), _packages_at_hand(config):
        _, info = auto_class.from_pretrained(
            folder,
            config=copy.deepcopy(config.config),
            device_map="meta",
            attn_implementation="eager",
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            trust_remote_code=config.trust_remote_code,
            **_model_kwargs(auto_class, config),
        )
    return set(info["missing_keys"])


@contextmanager
def _packages_at_hand(config: ExportConfig) -> Iterator[None]:
    """Raise an error that names a package which transformers needs to build the model, such as timm."""
    try:
        yield
    except ImportError as error:
        said = str(error).strip().partition(". ")[0]
        raise UnsupportedError(
            f"this {config.config.model_type} checkpoint needs a Python package that is not installed: {said}",
            remedy="Install it beside hfexport." + (_TIMM if "timm" in said.lower() else ""),
        ) from error


def _refuse_partial_load(folder: Path, config: ExportConfig, info: Mapping[str, Any]) -> None:
    """Raise an error if a weight is missing or has the wrong shape: it would be initialised at random."""
    if info["mismatched_keys"]:
        name, found, expected = min(info["mismatched_keys"])
        raise CheckpointError(
            f"{_shown(folder)}: weight {name} has shape {tuple(found)}, but config.json asks for {tuple(expected)}"
            f" ({len(info['mismatched_keys'])} such weights)",
            remedy="Use the config.json that was saved with these weights.",
        )
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise UnsupportedError(
            f"{_shown(folder)}: task {config.task.name} needs weights that the checkpoint does not have: "
            + ", ".join(missing[:5])
            + (f" and {len(missing) - 5} more" if len(missing) > 5 else ""),
            remedy="Choose a task whose head the checkpoint carries, or fine-tune the model for this task first.",
        )


def empty_model(
    config: ExportConfig, dtype: str, fake_mode: FakeTensorMode, *, loaded: torch.nn.Module | None = None
) -> torch.nn.Module:
    """Build the model in eval mode with eager attention, with fake tensors of `fake_mode` as weights.

    It is built on the meta device first, since some models compute with small real tensors while they are built.

    Args:
        config: export config of the model.
        dtype: `fp32` or `fp16`.
        fake_mode: fake mode of the weights.
        loaded: the same model with its weights, if available. A config may tie weights that the checkpoint stores
            separately, such as that of T5 since transformers 5; without `loaded` they would be tied.

    Raises:
        UnsupportedError: a package that the model needs is not installed.
    """
    return _faked(model_without_data(config, dtype), fake_mode, loaded)


def model_without_data(config: ExportConfig, dtype: str) -> torch.nn.Module:
    """Build the model on the meta device: its weights have names, shapes and dtypes, but no data.

    Raises:
        UnsupportedError: a package that the model needs is not installed.
    """
    with quiet(), _packages_at_hand(config), bounded(Path(config.config.name_or_path, "config.json")):
        return _on_meta(config, dtype)


def _on_meta(config: ExportConfig, dtype: str) -> torch.nn.Module:
    """Build the model on the meta device, as its constructor leaves it; transformers does not type the result."""
    auto_class = getattr(transformers, config.auto_class)
    kwargs = {"dtype": torch_dtype(dtype), "attn_implementation": "eager", **_model_kwargs(auto_class, config)}
    with torch.device("meta"):
        if hasattr(auto_class, "from_config"):
            return auto_class.from_config(config.config, trust_remote_code=config.trust_remote_code, **kwargs)  # type: ignore[no-any-return]
        # The model's own class, for a head that no auto class loads.
        return auto_class._from_config(config.config, **kwargs)  # type: ignore[no-any-return]


def empty_like(model: torch.nn.Module, fake_mode: FakeTensorMode) -> torch.nn.Module:
    """Return a model with the class and config of `model`, built like that of `empty_model`.

    Raises:
        UnsupportedError: `model` is not a model of transformers.
    """
    if not isinstance(model, transformers.PreTrainedModel):
        raise UnsupportedError(
            f"{type(model).__name__} is not a model of transformers", remedy="Give a PreTrainedModel."
        )
    dtype = model.dtype
    with quiet(), torch.device("meta"):
        empty = from_config(model, copy.deepcopy(model.config), dtype=dtype, attn_implementation="eager")
    return _faked(empty, fake_mode, model)


def _faked(model: Any, fake_mode: FakeTensorMode, loaded: torch.nn.Module | None) -> torch.nn.Module:
    if loaded is not None:
        keep_dtypes(model, loaded)
    with fake_mode, quiet():
        model.to_empty(device="cpu")
        if loaded is not None:
            model.all_tied_weights_keys = dict(loaded.all_tied_weights_keys)  # type: ignore[arg-type]
        model.tie_weights(recompute_mapping=loaded is None)
    return model.eval()  # type: ignore[no-any-return]


def tied_names(model: torch.nn.Module) -> list[list[str]]:
    """Return groups of names of parameters that share memory, sorted."""
    groups: dict[int, list[str]] = {}
    for name, tensor in model.named_parameters(remove_duplicate=False):
        if tensor.numel() > 1:
            groups.setdefault(tensor.data_ptr(), []).append(name)
    return sorted(sorted(names) for names in groups.values() if len(names) > 1)


@contextmanager
def plain(model: Any, values: Mapping[str, Any] = MappingProxyType({})) -> Iterator[None]:
    """Set `model` to eval mode and eager attention, as for every reference run; restore it on exit.

    Args:
        model: model of transformers.
        values: values of its config to set meanwhile.
    """
    training, attention = model.training, attention_of(model.config)
    before = {name: getattr(model.config, name) for name in values}
    model.eval()
    model.set_attn_implementation("eager")
    _set(model.config, values)
    try:
        yield
    finally:
        _set(model.config, before)
        model.set_attn_implementation(attention)
        model.train(training)


def _set(config: Any, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        setattr(config, name, value)


def _model_kwargs(auto_class: Any, config: ExportConfig) -> dict[str, Any]:
    """Return arguments for the model's class. The bare model has no pooler unless its output is requested."""
    kwargs = dict(config.model_kwargs)
    mapping = getattr(auto_class, "_model_mapping", {})
    bare = config.task.name.startswith(("default", "sentence")) and all(
        spec.name != "pooler_output" for spec in config.outputs
    )
    if not bare or type(config.config) not in mapping:
        return kwargs
    model_class = mapping[type(config.config)]
    model_class = model_class[0] if isinstance(model_class, tuple) else model_class
    if "add_pooling_layer" in inspect.signature(model_class).parameters:
        kwargs["add_pooling_layer"] = False
    return kwargs


def further_arguments(output_names: Sequence[str]) -> dict[str, bool]:
    """Return the arguments that make a model return the attentions and hidden states in `output_names`.

    Args:
        output_names: output names, such as `logits` or `cross_attentions.0`.
    """
    kinds = {name.partition(".")[0] for name in output_names if "." in name and not name.startswith("present.")}
    return {
        f"output_{kind}": True for kind in ("attentions", "hidden_states") if any(name.endswith(kind) for name in kinds)
    }


class FlatModel(torch.nn.Module):
    """Module that takes and returns tensors in a fixed order, the cache as `past_key_values.{layer}.{key,value}`.

    Args:
        model: model to call; kept as `self.model`.
        input_names: names of the positional inputs, in order.
        output_names: names of the outputs to return, in order.
    """

    def __init__(self, model: torch.nn.Module, input_names: Sequence[str], output_names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.input_names = tuple(input_names)
        self.output_names = tuple(output_names)
        self.further = further_arguments(self.output_names)
        # Exporters set a wrapper's training flag on all its submodules, which would enable dropout.
        self.eval()

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = self.answer(*tensors)
        return tuple(self.pick(outputs, name) for name in self.output_names)

    def answer(self, *tensors: torch.Tensor) -> Any:
        """Return all outputs of the model, by the names of transformers."""
        kwargs: dict[str, Any] = {}
        cache: list[torch.Tensor] = []
        for name, tensor in zip(self.input_names, tensors, strict=True):
            if name.startswith("past_key_values."):
                cache.append(tensor)
            else:
                kwargs[name] = tensor
        if cache:
            kwargs["past_key_values"] = filled_cache(cache)
            kwargs["use_cache"] = True
        elif "use_cache" in inspect.signature(self.model.forward).parameters:
            kwargs["use_cache"] = False
        return self.model(**kwargs, **self.further, return_dict=True)

    def pick(self, outputs: Any, name: str) -> torch.Tensor:
        """Return the tensor `name` from the model's outputs."""
        return _cached_or_named(outputs, name)


def filled_cache(tensors: Sequence[torch.Tensor]) -> DynamicCache:
    """Return a cache that holds `tensors` (key, value, ...), each (batch, heads, past_sequence, head_size).

    Layers are filled directly: `update` would concatenate each with an empty tensor, which a trace records.
    """
    cache = DynamicCache()
    for keys, values in zip(tensors[::2], tensors[1::2], strict=True):
        layer = DynamicLayer()
        layer.keys, layer.values = keys, values
        layer.dtype, layer.device, layer.is_initialized = keys.dtype, keys.device, True
        cache.layers.append(layer)
    return cache


def named_output(outputs: Any, name: str) -> torch.Tensor:
    """Return an output by its name, such as `params`, or one element of a tuple, such as `params.0`."""
    name, _, index = name.partition(".")
    found = outputs[name]  # untyped: a `ModelOutput` does not declare the types of its values
    return found[int(index)] if index else found  # type: ignore[no-any-return]


def _cached_or_named(outputs: Any, name: str) -> torch.Tensor:
    if name.startswith("present."):
        _, layer, part = name.split(".")
        cached = outputs.past_key_values.layers[int(layer)]
        return cached.keys if part == "key" else cached.values  # type: ignore[no-any-return]
    return named_output(outputs, name)
