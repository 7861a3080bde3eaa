"""Pad inputs to an artifact's fixed shape, and cut its outputs back.

A fixed-shape artifact takes inputs of exactly one size. Smaller inputs are padded as the model expects it:

- token ids with the padding id, and the attention mask with 0;
- new tokens on the right;
- the cache on the left, so that it ends where the new tokens begin.

A Neuron artifact contains a copy of this file, for machines whose Python is too old for hfexport. The file therefore
needs only numpy and the standard library of Python 3.8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["input_sizes", "pad_to_fixed", "slice_outputs"]

_PADDABLE = frozenset({"batch", "choice", "sequence", "past_sequence", "encoder_sequence", "decoder_sequence"})
"""Axes along which padding does not change the outputs of real values. An image's height and width are not here."""

_PAST = "past_sequence"

Spec = Any
"""One input or output: `name`, and `axes`, each of which is an axis name, a sum of names, or a fixed size."""

Shaped = Any
"""A NumPy array or a torch tensor."""


def input_sizes(inputs: Mapping[str, Shaped], specs: Sequence[Spec]) -> dict[str, int]:
    """Return the sizes of the free axes in `inputs`.

    Raises:
        ValueError: an input is missing, has other axes than its spec, or two inputs differ on a shared axis.
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
    """Pad `inputs` to the artifact's fixed sizes.

    Args:
        inputs: arrays by name, such as `input_ids` as (batch, sequence).
        specs: the artifact's inputs.
        fixed_sizes: fixed sizes by axis name.
        pad_values: padding value by input name; 0 where not given.

    Returns:
        New arrays in the order of `specs`, with the fixed sizes and the dtypes of the inputs.

    Raises:
        ValueError: an input is larger than the fixed size, or differs on an axis along which padding changes outputs.
    """
    sizes = input_sizes(inputs, specs)
    for axis, size in sizes.items():
        fixed = fixed_sizes.get(axis, size)
        if size > fixed:
            raise ValueError(
                f"{axis} is {size}, but this artifact takes at most {fixed}: shorten the input, or export with a larger size"
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
    """Return the padding before and after: before for the cache, after for everything else."""
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
        outputs: the artifact's outputs by name, as arrays or tensors.
        specs: the artifact's outputs.
        fixed_sizes: fixed sizes by axis name.
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
    return axis.split(" + ")  # as in export_config.axes, which this file cannot import beside a Neuron artifact


def _axis_size(axis: str | int, sizes: Mapping[str, int]) -> int:
    return axis if isinstance(axis, int) else sum(sizes[name] for name in _names(axis))
