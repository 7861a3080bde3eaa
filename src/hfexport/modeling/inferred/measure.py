"""Measure the interface of a model without data: outputs and their axes, vocabulary, positions, free axes."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal

import torch

from hfexport.export_config import Axis, DeclaredConfig, Limit, TensorSpec, names_of
from hfexport.export_config.decoder import AFFORDABLE_THRESHOLD, rope_growth
from hfexport.export_config.probes import make_inputs
from hfexport.export_config.windows import window_sizes
from hfexport.modeling.inferred.dry_run import DryModel, Given, Refused, axes_between

__all__ = [
    "decoder_vocabulary_size",
    "fix_refused_axes",
    "image_shape",
    "known_axes",
    "lower_refused_maximum",
    "measured_outputs",
    "position_limit",
    "raise_refused_minimum",
    "thresholds",
    "trace_sizes",
    "vocabulary_size",
]

_TRACED: Final = {"batch": 2, "choice": 3, "num_choices": 3, "sequence": 7, "past_sequence": 5}
_PRIMES: Final = (11, 13, 17, 19, 23, 29, 31, 37, 41, 43)
"""Sizes of other axes in the traced example; all differ, so that no axis is confused with another."""

_MEDIA: Final = ("pixel_values", "signal", "sample")
"""Roles of inputs whose sizes a model may fix; tokens may have any number."""

_AFFORDABLE: Final = 512
"""Largest number of tokens in a run with real weights; probes have the same limit."""

_GROWTH: Final = {"height": 32, "width": 64, "samples": 1234, "frames": 36}
"""Increment of the second run on axes that strides divide: several samples, frames or pixels at a time."""


def trace_sizes(specs: Sequence[TensorSpec], known: Mapping[str, int], limits: Mapping[str, Limit]) -> dict[str, int]:
    """Choose a size for every free axis of `specs`, `known` sizes first, all different and within `limits`."""
    primes = iter(_PRIMES)
    sizes: dict[str, int] = {}
    for name in names_of(specs):
        size = known.get(name) or _TRACED.get(name) or next(primes)
        limit = limits.get(name, Limit())
        size = size if size >= limit.minimum else limit.minimum + size
        sizes[name] = size if limit.maximum is None else min(size, limit.maximum)
    return sizes


def _grown(config: DeclaredConfig, only: str | None = None) -> dict[str, int]:
    """Return sizes that differ from the traced ones, for every free axis or for one."""
    sizes = dict(config.trace_sizes)
    for number, name in enumerate(sizes):
        if only not in (None, name):
            continue
        limit = config.limits.get(name, Limit())
        size = sizes[name] + _GROWTH.get(name, 2 * number + 1)
        if limit.maximum is not None and size > limit.maximum:
            size = sizes[name] - 1 if sizes[name] > limit.minimum else sizes[name]
        sizes[name] = size
    return sizes


def _run(dry: DryModel, config: DeclaredConfig, sizes: Mapping[str, int]) -> dict[str, Given]:
    arrays = make_inputs(config, sizes, "fp32", padding="right", seed=7)
    return dry.run(arrays, use_cache=config.task.with_past)


def fix_refused_axes(dry: DryModel, config: DeclaredConfig) -> DeclaredConfig:
    """Return `config` with each axis fixed at its traced size if the model accepts no other size.

    Raises:
        Refused: the model rejects its inputs at the traced sizes too.
    """
    _run(dry, config, config.trace_sizes)
    doubtful = {axis for spec in config.inputs if spec.role in _MEDIA for axis in spec.axes[1:]}
    for name in config.free_axes:
        if name not in doubtful:
            continue
        try:
            _run(dry, config, _grown(config, name))
        except Refused:
            config = _fixed(config, name)
    return config


def _fixed(config: DeclaredConfig, name: str) -> DeclaredConfig:
    size = config.trace_sizes[name]
    inputs = tuple(
        replace(spec, axes=tuple(size if axis == name else axis for axis in spec.axes)) for spec in config.inputs
    )
    sizes = {axis: value for axis, value in config.trace_sizes.items() if axis != name}
    return _changed(config, inputs=inputs, trace_sizes=sizes)


def _changed(config: DeclaredConfig, **values: Any) -> DeclaredConfig:
    interface = replace(config.interface, **values)
    return DeclaredConfig(config.config, config.task, interface, trust_remote_code=config.trust_remote_code)


def lower_refused_maximum(dry: DryModel, config: DeclaredConfig) -> DeclaredConfig:
    """Return `config` with the longest accepted text as the maximum of each length, within the limit of probes.

    ProphetNet's decoder, for example, also looks up the position after the last one for its second stream.
    """
    limits = dict(config.limits)
    for axis in ("sequence", "decoder_sequence"):
        limit = limits.get(axis)
        if axis not in config.free_axes or limit is None or not limit.maximum or limit.maximum > _AFFORDABLE:
            continue

        def takes(size: int, axis: str = axis) -> bool:
            sizes = {**config.trace_sizes, "batch": 1, axis: size}
            return dry.takes(make_inputs(config, sizes, "fp32", padding="none", seed=7))

        taken, refused = min(config.trace_sizes[axis], limit.maximum), limit.maximum
        if takes(limit.maximum) or not takes(taken):
            continue
        while refused - taken > 1:
            middle = (refused + taken) // 2
            refused, taken = (refused, middle) if takes(middle) else (middle, taken)
        limits[axis] = replace(limit, maximum=taken)
    return config if limits == config.limits else _changed(config, limits=limits)


def raise_refused_minimum(dry: DryModel, config: DeclaredConfig) -> DeclaredConfig:
    """Return `config` with the shortest accepted text as the minimum of its length, if that is larger.

    CANINE, for example, makes one position of four characters, and rejects shorter texts.
    """
    axis, limit = "sequence", config.limits.get("sequence", Limit())
    if axis not in config.free_axes or config.image_tokens:
        return config

    def takes(size: int) -> bool:
        try:
            _run(dry, config, {**config.trace_sizes, axis: size})
        except Refused:
            return False
        return True

    refused, taken = limit.minimum - 1, config.trace_sizes[axis]
    if takes(limit.minimum):
        return config
    while taken - refused > 1:
        middle = (refused + taken) // 2
        refused, taken = (refused, middle) if takes(middle) else (middle, taken)
    return _changed(config, limits={**config.limits, axis: Limit(taken, limit.maximum)})


def measured_outputs(dry: DryModel, config: DeclaredConfig) -> tuple[TensorSpec, ...]:
    """Return every output tensor, with axes derived from its shapes at two sizes.

    The named axes of a tensor end at the first axis that is neither a free axis nor a sum of two.

    Raises:
        Refused: the model rejects its inputs.
    """
    other_sizes = _grown(config)
    one, other = _run(dry, config, config.trace_sizes), _run(dry, config, other_sizes)
    specs: list[TensorSpec] = []
    for name, given in one.items():
        if name not in other or len(other[name].shape) != len(given.shape):
            continue
        axes = axes_between(given.shape, config.trace_sizes, other[name].shape, other_sizes)
        specs.append(TensorSpec(name, known_axes(axes), _element(given), "output"))
    return tuple(specs)


def known_axes(axes: Sequence[Axis | None]) -> tuple[Axis, ...]:
    """Return the axes before the first one that is unknown."""
    known: list[Axis] = []
    for axis in axes:
        if axis is None:
            break
        known.append(axis)
    return tuple(known)


def _element(given: Given) -> Literal["int64", "float"]:
    return "float" if given.dtype.startswith(("float", "bfloat")) else "int64"


def vocabulary_size(module: Any, model_config: Any) -> int:
    """Return the number of token ids: the rows of the model's embedding table, or the config's value.

    Models with neither, such as CANINE, which hashes its ids, accept all Unicode characters.
    """
    rows = _rows(module)
    configured = (getattr(model_config, name, None) for name in ("vocab_size", "src_vocab_size"))
    return rows or next((size for size in configured if isinstance(size, int) and size > 0), sys.maxunicode + 1)


def decoder_vocabulary_size(module: Any) -> int | None:
    """Return the number of rows of the decoder's embedding table; `None` if there is none."""
    decoder = getattr(module, "get_decoder", lambda: None)()
    return None if decoder is None or decoder is module else _rows(decoder)


def _rows(module: Any) -> int | None:
    """Return the number of rows of the model's embedding table; `None` if there is none."""
    try:
        table = module.get_input_embeddings()
    except (NotImplementedError, AttributeError):
        return None
    return int(table.num_embeddings) if isinstance(table, torch.nn.Embedding) else None


def position_limit(module: torch.nn.Module, model_config: Any, part: str | None = None) -> int | None:
    """Return the longest sequence that the model, or one part of it, has positions for; `None` if there is no maximum.

    Sources are the rows of its position tables (less the rows up to a padding row) and its config.

    Args:
        module: the model.
        model_config: its config, or that of its text model.
        part: `encoder` or `decoder`, so that tables of the other part do not count if this part has its own; by default
            all tables count.
    """
    tables = [
        (set(name.split(".")), table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1))
        for name, table in module.named_modules()
        if isinstance(table, torch.nn.Embedding)
        and "position" in name
        and not any(word in name for word in ("relative", "distance", "vision", "image", "axial"))
    ]
    if part is not None and any({"encoder", "decoder"} & names == {part} for names, _ in tables):
        other = {"encoder": "decoder", "decoder": "encoder"}[part]
        tables = [(names, size) for names, size in tables if other not in names]
    bounds = [size for _, size in tables]
    growth = rope_growth(model_config)
    configured = getattr(model_config, "max_position_embeddings", None) if growth is None else growth.maximum
    if isinstance(configured, int) and configured > 0:
        bounds.append(configured)
    return min(bounds, default=None)


def thresholds(model_config: Any, axis: str, maximum: int | None) -> dict[str, int]:
    """Return the size of `axis` above which attention leaves out tokens, if probes can reach it."""
    growth = rope_growth(model_config)
    sizes = [*window_sizes(model_config).values(), *([] if growth is None else [growth.threshold])]
    found = [size for size in sizes if 0 < size <= AFFORDABLE_THRESHOLD]
    return {axis: max(found)} if found and (maximum is None or max(found) + 5 < maximum) else {}


def image_shape(model_config: Any, preprocessor: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return (channels, height, width) of the images that a model takes.

    Taken from its config (or that of its vision part or backbone), else from its preprocessor's, else 3 x 224 x 224.

    Args:
        model_config: the model's `PreTrainedConfig`.
        preprocessor: content of preprocessor_config.json; empty if there is none.
    """
    parts = (model_config, *(getattr(model_config, name, None) for name in ("vision_config", "backbone_config")))
    sources = [source for source in parts if source is not None]
    sizes = [getattr(source, "image_size", None) for source in sources]
    sizes += [preprocessor.get("crop_size"), preprocessor.get("size")]
    height, width = next((size for size in map(_height_and_width, sizes) if size is not None), (224, 224))
    names = ("num_channels", "in_channels", "in_chans")
    channels = [getattr(source, name, None) for source in sources for name in names]
    return next((count for count in channels if isinstance(count, int)), 3), height, width


def _height_and_width(size: Any) -> tuple[int, int] | None:
    """Parse (height, width) from the forms that configs use."""
    if isinstance(size, int):
        return size, size
    if isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(side, int) for side in size):
        return int(size[0]), int(size[1])
    if isinstance(size, Mapping):
        if "height" in size and "width" in size:
            return int(size["height"]), int(size["width"])
        if "shortest_edge" in size:
            return int(size["shortest_edge"]), int(size["shortest_edge"])
    return None
