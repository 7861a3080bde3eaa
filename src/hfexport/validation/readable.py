"""Find the positions of an output that the attention mask hides from users.

Numpy only. The outputs of padded tokens are not used: attention skips their keys and values, and their logits and
hidden states belong to no token. Runtimes differ at these positions, most of all in half precision, where a row of
attention with only masked keys is a sum of rounding errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfexport.export_config import Axis, ExportConfig, TensorSpec, names_in
from hfexport.export_config.probes import Probe, beam_rows

__all__ = ["hidden_positions"]


def hidden_positions(
    config: ExportConfig, probe: Probe, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[np.bool_]]:
    """Find the positions of each output that the attention mask of a probe hides.

    An output with two lengths, such as attention weights (batch, heads, queries, keys), is hidden only by its queries:
    the weight of a masked key is used, and must be 0.

    Args:
        config: graph that was run.
        probe: probe that was run; in greedy decoding, masks grow by one token per step, and rows may change places.
        inputs: inputs of the probe, by name.
        outputs: outputs of the model, by name.

    Returns:
        By name of each output with hidden positions: true where hidden, broadcastable to the output.
    """
    asked = config.prompt if probe.greedy_steps else config
    masks = [(spec, inputs[spec.name]) for spec in asked.inputs if spec.role == "attention_mask"]
    masks = [(spec, mask) for spec, mask in masks if not mask.all()]
    hidden: dict[str, NDArray[np.bool_]] = {}
    for name, output in outputs.items() if masks else ():
        if probe.greedy_steps:
            found = _in_last_cache(name, output, masks, probe)
        else:
            spec = next((spec for spec in config.outputs if spec.name == name), None)
            found = None if spec is None else _along_axes(spec, output, masks)
        if found is not None and found.any():
            hidden[name] = found
    return hidden


def _along_axes(
    spec: TensorSpec, output: NDArray[Any], masks: list[tuple[TensorSpec, NDArray[Any]]]
) -> NDArray[np.bool_] | None:
    """Broadcast the mask to the axes of an output of one call; `None` if no mask has these axes."""
    for masked, mask in masks:
        leading = masked.axes[:-1]
        place = next(
            (index for index, axis in enumerate(spec.axes) if isinstance(axis, str) and axis not in leading), None
        )
        fits = spec.axes[: len(leading)] == leading and output.shape[: len(leading)] == mask.shape[:-1]
        if fits and place is not None and _newest(spec.axes[place]) == _newest(masked.axes[-1]):
            return _laid_over(output, mask, len(leading), place)
    return None


def _in_last_cache(
    name: str, output: NDArray[Any], masks: list[tuple[TensorSpec, NDArray[Any]]], probe: Probe
) -> NDArray[np.bool_] | None:
    """Broadcast the prompt's mask to the cache after greedy decoding; logits belong to visible tokens."""
    if not name.startswith("present.") or output.ndim != 4:
        return None
    by_name = {spec.name: mask for spec, mask in masks}
    if ".encoder." in name:
        mask = by_name.get("attention_mask")
        if mask is None or mask.shape[-1] != output.shape[2]:
            return None
    else:
        own = "decoder_attention_mask" if ".decoder." in name else "attention_mask"
        mask = by_name.get(own)
    if mask is None or mask.ndim != 2 or len(mask) != len(output):
        return None
    if probe.reorders:
        mask = mask[beam_rows(len(mask))]
    if mask.shape[1] < output.shape[2]:
        grown = output.shape[2] - mask.shape[1]
        mask = np.concatenate([mask, np.ones((len(mask), grown), mask.dtype)], axis=1)
    return _laid_over(output, mask, 1, 2)


def _laid_over(output: NDArray[Any], mask: NDArray[Any], leading: int, place: int) -> NDArray[np.bool_] | None:
    """Return true where `mask` is 0; its last axis is aligned with the end of axis `place` of `output`."""
    length = output.shape[place]
    missing = max(0, length - mask.shape[-1])
    shown = np.concatenate([np.ones((*mask.shape[:-1], missing), mask.dtype), mask], axis=-1)[..., -length:]
    shape = [1] * output.ndim
    shape[:leading] = mask.shape[:-1]
    shape[place] = length
    return np.asarray(shown == 0).reshape(shape)


def _newest(axis: Axis) -> Axis:
    """Return the newest part of an axis: `sequence` of `past_sequence + sequence`."""
    return axis if isinstance(axis, int) else names_in(axis)[-1]
