"""Draw values of named inputs from a seed, depending on the role of each input.

Numpy only. The same sizes, padding and seed always give the same arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

from hfexport.errors import CheckpointError
from hfexport.export_config import Axis, DecoderConfig, ExportConfig, TensorSpec, axis_size, names_in
from hfexport.export_config.arrays import Arrays

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Padding", "make_inputs", "trace_inputs"]

OUTLIERS: Final = 0.05
OUTLIER_SCALE: Final = 4.0
"""Share of outliers among the values of images and signals, and their scale."""

MAX_ELEMENTS: Final = 2**26
"""Largest number of values of one input in a batch of 1. The inputs of the largest known models have less than half of
it."""

Padding = Literal["none", "right", "left"]


def trace_inputs(config: ExportConfig, dtype: str) -> Arrays:
    """Return the example that export traces. It is partly padded, so that the mask cannot be folded into a constant."""
    return make_inputs(config, config.trace_sizes, dtype, padding="right", seed=7)


def make_inputs(
    config: ExportConfig,
    sizes: Mapping[str, int],
    dtype: str,
    *,
    padding: Padding = "none",
    seed: int = 0,
    edge_tokens: bool = False,
    last_positions: bool = False,
) -> Arrays:
    """Draw one array for each input of `config`.

    Args:
        config: names, axes and roles of the inputs.
        sizes: sizes of the free axes.
        dtype: `fp32` or `fp16`, for floating inputs.
        padding: see `Probe`.
        seed: seed of all values.
        edge_tokens: see `Probe`.
        last_positions: see `Probe`.

    Returns:
        Arrays in the order of `config.inputs`.

    Raises:
        CheckpointError: config.json describes an input of more than `MAX_ELEMENTS` values.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    shapes = {spec.name: tuple(axis_size(axis, sizes) for axis in spec.axes) for spec in config.inputs}
    _refuse_large(shapes)
    masks = {
        spec: _attention_mask(shapes[spec.name], padding) for spec in config.inputs if spec.role == "attention_mask"
    }
    floating = np.float32 if dtype == "fp32" else np.float16
    arrays: Arrays = {}
    for spec in config.inputs:
        drawing = _Drawing(config, spec.name, rng, _mask_over(spec, masks), padding, edge_tokens)
        if spec.role == "sample":
            drawn = _resampled(config.samples[spec.name], spec.axes, shapes[spec.name], rng)
        else:
            drawn = _DRAW[spec.role](shapes[spec.name], drawing)
        arrays[spec.name] = drawn.astype(floating) if spec.dtype == "float" else drawn
    if last_positions and isinstance(config, DecoderConfig) and config.max_positions and "position_ids" in arrays:
        (mask,) = masks.values()
        shown = mask[..., -shapes["position_ids"][-1] :]
        arrays["position_ids"] += np.where(shown == 0, 0, config.max_positions - mask.shape[-1])
    return arrays


def _refuse_large(shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Reject inputs of absurd sizes before any memory is allocated; the batch, which users choose, is not counted."""
    for name, shape in shapes.items():
        if (elements := math.prod(shape[1:])) >= MAX_ELEMENTS:
            raise CheckpointError(
                f"config.json: describes a model whose input {name} has {elements:.3g} values, of shape {list(shape)}",
                remedy="Use the config.json that was saved with these weights.",
            )


def _newest(axis: Axis) -> Axis:
    """Return the newest part of an axis: `sequence` of `past_sequence + sequence`."""
    return axis if isinstance(axis, int) else names_in(axis)[-1]


def _mask_over(spec: TensorSpec, masks: Mapping[TensorSpec, NDArray[np.int64]]) -> NDArray[np.int64] | None:
    """Return the mask along the last axis of `spec`, which may include the past; `None` if there is none."""
    for masked, mask in masks.items():
        if _newest(masked.axes[-1]) == _newest(spec.axes[-1]):
            return mask
    return None


def _attention_mask(shape: tuple[int, ...], padding: Padding) -> NDArray[np.int64]:
    """Return ones with a different number of zeros in each row.

    The first row of several is full; no row is all zeros.
    """
    import numpy as np

    mask = np.ones(shape, dtype=np.int64)
    if padding == "none":
        return mask
    length = shape[-1]
    rows = mask.reshape(-1, length)
    for row, values in enumerate(rows, start=1 if len(rows) == 1 else 0):
        padded = min(length - 1, row * max(1, length // 3))
        if padding == "right":
            values[length - padded :] = 0
        else:
            values[:padded] = 0
    return mask


@dataclass(frozen=True)
class _Drawing:
    """Values that all roles of one example share, such as the random generator and the mask."""

    config: ExportConfig
    name: str
    rng: np.random.Generator
    mask: NDArray[np.int64] | None
    padding: Padding
    edge_tokens: bool

    @property
    def model_config(self) -> Any:
        return self.config.text_config

    @property
    def vocabulary_size(self) -> int:
        return self.config.vocabulary_of(self.name)

    @property
    def shown(self) -> NDArray[np.int64]:
        """Return the attention mask, for roles that depend on it."""
        if self.mask is None:
            raise ValueError("inputs of this role need an attention mask")
        return self.mask


def _token_ids(shape: tuple[int, ...], drawing: _Drawing) -> NDArray[np.int64]:
    import numpy as np

    mask, model_config = drawing.mask, drawing.model_config
    vocabulary, pad = drawing.vocabulary_size, getattr(model_config, "pad_token_id", None)
    ids = drawing.rng.integers(0, vocabulary, shape, dtype=np.int64)
    if pad is not None and 0 <= pad < vocabulary and vocabulary > 1:
        ids = np.where(ids == pad, (pad + 1) % vocabulary, ids)
    else:
        pad = 0
    if drawing.edge_tokens:
        flat = ids.reshape(-1, shape[-1])
        edges = np.array([vocabulary - 1, 0, pad], dtype=np.int64)[: shape[-1]]
        flat[:, : len(edges)] = edges
        ids = flat.reshape(shape)
    if mask is not None:
        ids = np.where(mask[..., -shape[-1] :] == 0, pad, ids)
    return ids


def _sentence_ids(shape: tuple[int, ...], drawing: _Drawing) -> NDArray[np.int64]:
    """Return token ids whose rows end in the only end-of-sequence id, where models look for the position to pool."""
    import numpy as np

    end = int(drawing.model_config.eos_token_id)
    ids, shown = _token_ids(shape, drawing), drawing.shown
    ids = np.where((ids == end) & (shown == 1), (end + 1) % drawing.vocabulary_size, ids)
    last = shape[-1] - 1 - np.argmax(shown[..., ::-1], axis=-1)
    np.put_along_axis(ids, last[..., None], end, axis=-1)
    return ids


def _image_text_ids(shape: tuple[int, ...], drawing: _Drawing) -> NDArray[np.int64]:
    """Return token ids that start with one placeholder per image feature and contain no others."""
    import numpy as np

    placeholder, number = int(drawing.config.config.image_token_id), drawing.config.image_tokens
    ids = _token_ids(shape, drawing)
    ids = np.where(ids == placeholder, (placeholder + 1) % drawing.vocabulary_size, ids)
    ids[..., :number] = placeholder
    return ids


def _mask(shape: tuple[int, ...], drawing: _Drawing) -> NDArray[np.int64]:
    del shape
    return drawing.shown


def _global_attention_mask(shape: tuple[int, ...], drawing: _Drawing) -> NDArray[np.int64]:
    """Mark the first token and a few others in every other row, never padding."""
    import numpy as np

    chosen = drawing.rng.random(shape) < 0.15
    chosen[..., 0] = True
    rows = chosen.reshape(-1, shape[-1])
    rows[1::2] = False
    return np.where(drawing.shown == 1, rows.reshape(shape), False).astype(np.int64)


def _token_type_ids(shape: tuple[int, ...], drawing: _Drawing) -> NDArray[np.int64]:
    import numpy as np

    kinds = max(1, int(getattr(drawing.model_config, "type_vocab_size", 1)))
    return drawing.rng.integers(0, kinds, shape, dtype=np.int64)


def _position_ids(shape: tuple[int, ...], drawing: _Drawing) -> NDArray[np.int64]:
    """Return the position of each token among the unmasked ones, as `generate` counts it; padding gets 1."""
    import numpy as np

    positions = np.where(drawing.shown == 0, 1, np.cumsum(drawing.shown, axis=-1) - 1)
    return np.ascontiguousarray(positions[..., -shape[-1] :])


def _language_ids(shape: tuple[int, ...], drawing: _Drawing) -> NDArray[np.int64]:
    import numpy as np

    return drawing.rng.integers(0, int(drawing.model_config.n_langs), shape, dtype=np.int64)


def _category_ids(shape: tuple[int, ...], drawing: _Drawing) -> NDArray[np.int64]:
    """Return one id per category, within the config's `cardinality`."""
    return drawing.rng.integers(0, drawing.model_config.cardinality, shape)


def _boxes(shape: tuple[int, ...], drawing: _Drawing) -> NDArray[np.int64]:
    """Return left, top, right and bottom on a page of `max_2d_position_embeddings`; the last position is included."""
    import numpy as np

    corners = drawing.rng.integers(0, int(drawing.model_config.max_2d_position_embeddings), (*shape[:-1], 2, 2))
    corners.reshape(-1, 2, 2)[0] = [[0, 0], [drawing.model_config.max_2d_position_embeddings - 1] * 2]
    return np.sort(corners, axis=-2).reshape(shape)


def _pixel_values(shape: tuple[int, ...], drawing: _Drawing) -> NDArray[np.float64]:
    """Return normally distributed values. One in twenty is four times as large, as in bright pixels and loud sounds."""
    import numpy as np

    drawn = drawing.rng.standard_normal(shape)
    return np.where(drawing.rng.random(shape) < OUTLIERS, OUTLIER_SCALE * drawn, drawn)


def _pixel_mask(shape: tuple[int, ...], drawing: _Drawing) -> NDArray[np.int64]:
    """Return ones where an image is, and zeros below and to the right; the first image of several has no padding."""
    import numpy as np

    mask = np.ones(shape, dtype=np.int64)
    if drawing.padding == "none":
        return mask
    batch, height, width = shape
    for row, image in enumerate(mask, start=1 if batch == 1 else 0):
        image[height - min(height - 1, row * height // 4) :] = 0
        image[:, width - min(width - 1, row * width // 5) :] = 0
    return mask


def _cached(shape: tuple[int, ...], drawing: _Drawing) -> NDArray[np.float64]:
    return drawing.rng.standard_normal(shape) * 0.5


def _resampled(
    sample: Any, axes: tuple[Axis, ...], shape: tuple[int, ...], rng: np.random.Generator
) -> NDArray[np.generic]:
    """Return rows of `sample` chosen at random along every free axis.

    Fixed axes stay whole, since their parts may depend on each other.
    """
    import numpy as np

    drawn = np.asarray(sample)
    for index, axis in enumerate(axes):
        if isinstance(axis, str):
            drawn = drawn.take(rng.integers(0, drawn.shape[index], shape[index]), axis=index)
    return drawn


_DRAW: Final[Mapping[str, Callable[[tuple[int, ...], _Drawing], NDArray[Any]]]] = MappingProxyType(
    {
        "token_ids": _token_ids,
        "sentence_ids": _sentence_ids,
        "image_text_ids": _image_text_ids,
        "attention_mask": _mask,
        "global_attention_mask": _global_attention_mask,
        "token_type_ids": _token_type_ids,
        "language_ids": _language_ids,
        "category_ids": _category_ids,
        "position_ids": _position_ids,
        "boxes": _boxes,
        "pixel_values": _pixel_values,
        "pixel_mask": _pixel_mask,
        "signal": _pixel_values,
        "past_key": _cached,
        "past_value": _cached,
    }
)
"""Function that draws the values of each role. Floating values are cast to the dtype of the export afterwards."""
