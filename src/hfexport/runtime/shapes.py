"""Artifacts of fixed shape: pad the inputs to it, cut the outputs back.

Such an artifact takes inputs of exactly one size. Smaller ones are padded as the model expects it: token ids with the
padding id, the attention mask with 0, new tokens on the right, the cache on the left (so that it ends where the new
tokens begin). A Neuron artifact carries a copy of this file, for machines whose Python is too old for hfexport: numpy
and the standard library of Python 3.8 alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["input_sizes", "pad_to_fixed", "slice_outputs"]

_PADDABLE = frozenset({"batch", "choice", "sequence", "past_sequence", "encoder_sequence", "decoder_sequence"})
"""Axes along which padding leaves the real values' outputs as they were. An image's height and width are not."""

_PAST = "past_sequence"

Spec = Any
"""One input or output: `name`, and `axes`, each free (a name), a sum of free axes, or fixed (a size)."""

Shaped = Any
"""An array of NumPy or a tensor of torch."""


def input_sizes(inputs: Mapping[str, Shaped], specs: Sequence[Spec]) -> dict[str, int]:
    """The sizes of the free axes that `inputs` have.

    Raises:
        ValueError: an input is missing, has other axes than its spec, or two inputs differ on an axis they share.
    """
    missing = [spec.name for spec in specs if spec.name not in inputs]
    unknown = sorted(set(inputs) - {spec.name for spec in specs})
    if missing or unknown:
        found = [f"{what}: {', '.join(names)}" for what, names in (("missing", missing), ("unknown", unknown)) if names]
        wanted_names = ", ".join(spec.name for spec in specs)
        raise ValueError(f"inputs do not fit; {'; '.join(found)}; this artifact takes {wanted_names}")
    sizes: dict[str, int] = {}
    for spec in specs:
        shape = tuple(inputs[spec.name].shape)
        if len(shape) != len(spec.axes):
            raise ValueError(f"{spec.name} has shape {shape}, but its axes are ({', '.join(map(str, spec.axes))})")
        for axis, size in zip(spec.axes, shape):
            if isinstance(axis, str) and " + " not in axis:
                sizes.setdefault(axis, size)
    for spec in specs:
        shape, wanted = tuple(inputs[spec.name].shape), tuple(_axis_size(axis, sizes) for axis in spec.axes)
        if shape != wanted:
            raise ValueError(f"{spec.name} has shape {shape}, but with the other inputs it must be {wanted}")
    return sizes


def pad_to_fixed(
    inputs: Mapping[str, Any],
    specs: Sequence[Spec],
    fixed_sizes: Mapping[str, int],
    pad_values: Mapping[str, int | None],
) -> dict[str, Any]:
    """Pad `inputs` up to the sizes that an artifact holds fixed.

    Args:
        inputs: arrays by name, such as `input_ids` as (batch, sequence).
        specs: the artifact's inputs.
        fixed_sizes: its sizes by axis name.
        pad_values: by input name, what to fill with; 0 where not given.

    Returns:
        New arrays in the order of `specs`, of the fixed sizes and of the dtypes that came in.

    Raises:
        ValueError: an input is larger than the fixed size, or differs on an axis along which padding changes answers.
    """
    sizes = input_sizes(inputs, specs)
    for axis, size in sizes.items():
        fixed = fixed_sizes.get(axis, size)
        if size > fixed:
            raise ValueError(
                f"{axis} is {size}, but this artifact takes at most {fixed}: cut the input, or export anew"
            )
        if size < fixed and axis not in _PADDABLE:
            raise ValueError(f"{axis} is {size}, but this artifact takes exactly {fixed}: resize the input")
        if size < fixed and axis == "sequence" and None in pad_values.values():
            raise ValueError(
                f"sequence is {size}, but this artifact takes exactly {fixed}: the model has no padding token"
            )
    return {spec.name: _pad(inputs[spec.name], spec, sizes, fixed_sizes, pad_values) for spec in specs}


def _pad(
    array: Any,
    spec: Spec,
    sizes: Mapping[str, int],
    fixed_sizes: Mapping[str, int],
    pad_values: Mapping[str, int | None],
) -> Any:
    import numpy as np

    widths = [_widths(axis, sizes, fixed_sizes) for axis in spec.axes]
    return np.pad(array, widths, constant_values=pad_values.get(spec.name) or 0)


def _widths(axis: str | int, sizes: Mapping[str, int], fixed_sizes: Mapping[str, int]) -> tuple[int, int]:
    """How much to add before and after: the past before, everything else after."""
    if isinstance(axis, int):
        return 0, 0
    added = {name: fixed_sizes.get(name, sizes[name]) - sizes[name] for name in _names(axis)}
    before = added.pop(_PAST, 0)
    return before, sum(added.values())


def slice_outputs(
    outputs: Mapping[str, Shaped],
    specs: Sequence[Spec],
    fixed_sizes: Mapping[str, int],
    sizes: Mapping[str, int],
) -> dict[str, Any]:
    """Cut the outputs of padded inputs back to what they would be without padding.

    Args:
        outputs: arrays or tensors by name, as the artifact gave them.
        specs: the artifact's outputs.
        fixed_sizes: its sizes by axis name.
        sizes: `input_sizes` of the inputs before they were padded.

    Returns:
        Views of `outputs`, in the order of `specs`.
    """
    result = {}
    for spec in specs:
        cuts = []
        for axis in spec.axes:
            before, _ = _widths(axis, sizes, fixed_sizes)
            cuts.append(slice(before, before + _axis_size(axis, sizes)) if isinstance(axis, str) else slice(None))
        result[spec.name] = outputs[spec.name][tuple(cuts)]
    return result


def _names(axis: str) -> list[str]:
    return axis.split(" + ")  # as export_config.axes; this file also runs alone, beside a Neuron artifact


def _axis_size(axis: str | int, sizes: Mapping[str, int]) -> int:
    return axis if isinstance(axis, int) else sum(sizes[name] for name in _names(axis))
