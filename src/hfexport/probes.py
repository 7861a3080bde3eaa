"""Named inputs drawn from a seed: the example that export traces, and the probes that validation asks about.

Numpy only. The same sizes, padding and seed always give the same arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from hfexport.export_config import DecoderConfig, EncoderConfig, ExportConfig, TensorSpec, axis_size

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Probe", "fixed_probes", "make_inputs", "trace_inputs", "validation_probes"]

Padding = Literal["none", "right", "left"]
Arrays = Mapping[str, "NDArray[Any]"]

AFFORDABLE_TOKENS = 512
"""A probe at a model's last position is made up to this many tokens; past it, eager attention's cost runs away."""

GREEDY_STEPS = 8


@dataclass(frozen=True)
class Probe:
    """One question that the artifact and the reference model are both asked.

    Attributes:
        name: says what it varies, such as `batch 3, sequence 2, right padding`.
        sizes: sizes of the free axes.
        padding: where rows of a batch are padded; every row by another length.
        seed: seeds the values.
        greedy_steps: tokens to generate greedily through the model's own cache, starting from the probe's prompt.
        edge_tokens: put the vocabulary's first and last id, and the padding id in unmasked places, into the ids.
        last_positions: number the tokens so that the last of a full row has the last position that the model knows.
    """

    name: str
    sizes: Mapping[str, int]
    padding: Padding = "none"
    seed: int = 0
    greedy_steps: int = 0
    edge_tokens: bool = False
    last_positions: bool = False

    def inputs(self, config: ExportConfig, dtype: str) -> dict[str, NDArray[Any]]:
        """The arrays to ask with, by input name; int64, and `dtype` (`fp32` or `fp16`) where floating."""
        return make_inputs(
            config,
            self.sizes,
            dtype,
            padding=self.padding,
            seed=self.seed,
            edge_tokens=self.edge_tokens,
            last_positions=self.last_positions,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values from which `from_dict` makes the same probe."""
        return {part.name: getattr(self, part.name) for part in fields(self)} | {"sizes": dict(self.sizes)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Probe:
        return cls(**{**values, "sizes": MappingProxyType(dict(values["sizes"]))})


def trace_inputs(config: ExportConfig, dtype: str) -> dict[str, NDArray[Any]]:
    """The example that export traces: partly padded, so that nothing about the mask can be folded away."""
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
) -> dict[str, NDArray[Any]]:
    """Draw one array for each input of `config`.

    Args:
        config: names, axes and roles of the inputs.
        sizes: sizes of the free axes.
        dtype: `fp32` or `fp16`, for floating inputs.
        padding: see `Probe`.
        seed: seeds every value.
        edge_tokens: see `Probe`.
        last_positions: see `Probe`.

    Returns:
        Arrays in the order of `config.inputs`.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    shapes = {spec.name: tuple(axis_size(axis, sizes) for axis in spec.axes) for spec in config.inputs}
    mask = _attention_mask(shapes["attention_mask"], padding) if "attention_mask" in shapes else None
    arrays: dict[str, NDArray[Any]] = {}
    for spec in config.inputs:
        arrays[spec.name] = _draw(spec, shapes[spec.name], config.config, rng, mask, dtype, edge_tokens)
    if last_positions and isinstance(config, DecoderConfig) and "position_ids" in arrays and mask is not None:
        shown = mask[..., -shapes["position_ids"][-1] :]
        arrays["position_ids"] += np.where(shown == 0, 0, config.max_positions - mask.shape[-1])
    return arrays


def _draw(
    spec: TensorSpec,
    shape: tuple[int, ...],
    model_config: Any,
    rng: np.random.Generator,
    mask: NDArray[np.int64] | None,
    dtype: str,
    edge_tokens: bool,
) -> NDArray[Any]:
    import numpy as np

    if spec.dtype == "float":
        scale = 1.0 if spec.role == "pixel_values" else 0.5
        return (rng.standard_normal(shape) * scale).astype(np.float32 if dtype == "fp32" else np.float16)
    if spec.role == "token_ids":
        return _token_ids(shape, model_config, rng, mask, edge_tokens)
    if mask is None:
        raise ValueError(f"{spec.name}: inputs of role {spec.role} need an attention mask")
    if spec.role == "attention_mask":
        return mask
    if spec.role == "token_type_ids":
        kinds = max(1, int(getattr(model_config, "type_vocab_size", 1)))
        return rng.integers(0, kinds, shape, dtype=np.int64)
    # position_ids: a token's place among the unmasked, as `generate` counts it; padding gets 1, as there.
    positions = np.where(mask == 0, 1, np.cumsum(mask, axis=-1) - 1)
    return np.ascontiguousarray(positions[..., -shape[-1] :])


def _token_ids(
    shape: tuple[int, ...],
    model_config: Any,
    rng: np.random.Generator,
    mask: NDArray[np.int64] | None,
    edge_tokens: bool,
) -> NDArray[np.int64]:
    import numpy as np

    vocabulary, pad = int(model_config.vocab_size), getattr(model_config, "pad_token_id", None)
    ids = rng.integers(0, vocabulary, shape, dtype=np.int64)
    if pad is not None and 0 <= pad < vocabulary and vocabulary > 1:
        ids = np.where(ids == pad, (pad + 1) % vocabulary, ids)
    else:
        pad = 0
    if edge_tokens:
        flat = ids.reshape(-1, shape[-1])
        edges = np.array([vocabulary - 1, 0, pad], dtype=np.int64)[: shape[-1]]
        flat[:, : len(edges)] = edges
        ids = flat.reshape(shape)
    if mask is not None:
        ids = np.where(mask[..., -shape[-1] :] == 0, pad, ids)
    return ids


def _attention_mask(shape: tuple[int, ...], padding: Padding) -> NDArray[np.int64]:
    """Ones, with another number of zeros in every row; the first of several stays full, and each keeps a token."""
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


def validation_probes(config: ExportConfig) -> tuple[Probe, ...]:
    """Probes at shapes and paddings that export did not see, within the limits of `config`, each name once."""
    if isinstance(config, EncoderConfig):
        probes = _encoder_probes(config)
    elif isinstance(config, DecoderConfig):
        probes = _decoder_probes(config)
    else:
        probes = _vision_probes(config)
    # Cut to the limits of a small model, two may have become the same question.
    asked: dict[str, Probe] = {}
    for probe in (_within_limits(config, probe) for probe in probes):
        asked.setdefault(probe.name, probe)
    return tuple(asked.values())


def fixed_probes(config: ExportConfig, sizes: Mapping[str, int]) -> tuple[Probe, ...]:
    """Probes for an artifact of fixed sizes: only values and padding vary."""
    if not any(spec.role == "attention_mask" for spec in config.inputs):
        return tuple(Probe(f"{_name(sizes, 'none')}, seed {seed}", sizes, "none", seed) for seed in (1, 2))
    paddings: tuple[Padding, ...] = ("none", "right")
    if isinstance(config, DecoderConfig):
        paddings = ("none", "right", "left")
    return tuple(
        Probe(_name(sizes, padding), sizes, padding, seed=seed, edge_tokens=seed == 1)
        for seed, padding in enumerate(paddings, start=1)
    )


def _encoder_probes(config: EncoderConfig) -> list[Probe]:
    multiple = {"choice": 2} if config.task.name == "multiple-choice" else {}

    def probe(batch: int, sequence: int, padding: Padding, seed: int, edge: bool = False) -> Probe:
        sizes = {"batch": batch, **multiple, "sequence": sequence}
        return Probe(_name(sizes, padding), sizes, padding, seed, edge_tokens=edge)

    probes = [
        probe(1, 1, "none", 1),
        probe(3, 2, "right", 2),
        probe(1, 13, "none", 3, edge=True),
        probe(3, 29, "right", 4, edge=True),
    ]
    if config.max_positions is None or config.max_positions >= 29:
        probes.append(probe(1, min(config.max_positions or AFFORDABLE_TOKENS, AFFORDABLE_TOKENS), "none", 5))
    return probes


def _decoder_probes(config: DecoderConfig) -> list[Probe]:
    def probe(
        batch: int, sequence: int, past: int, padding: Padding, seed: int, edge: bool = False, steps: int = 0
    ) -> Probe:
        sizes = {"batch": batch, "sequence": sequence}
        if config.task.with_past:
            sizes["past_sequence"] = past
        return Probe(_name(sizes, padding), sizes, padding, seed, steps, edge)

    last = min(config.max_positions, AFFORDABLE_TOKENS)
    probes = [
        probe(1, 1, 0, "none", 1),
        probe(3, 2, 9, "left", 2),
        probe(1, 13, 1, "none", 3, edge=True),
        probe(3, 29, 0, "left", 4, edge=True),
        probe(3, 11, 2, "right", 5, edge=True),
        probe(1, last, 0, "none", 7),
    ]
    if config.task.with_past:
        probes.append(probe(1, 1, 17, "none", 6))
    if any(spec.role == "position_ids" for spec in config.inputs):
        probes.append(replace(probe(1, 5, 4, "none", 9), last_positions=True))
    if config.task.generates:
        probes.append(probe(3, 6, 0, "left", 8, steps=GREEDY_STEPS))
    return probes


def _vision_probes(config: ExportConfig) -> list[Probe]:
    sizes = dict(config.trace_sizes)
    free = [axis for axis in ("height", "width") if axis in config.free_axes]
    fixed = {name: size for name, size in sizes.items() if name in config.free_axes or name == "batch"}
    variants = [fixed | {"batch": 1}, fixed | {"batch": 3}]
    if free:
        height, width = sizes["height"], sizes["width"]
        variants.append({"batch": 1, "height": max(32, height // 2 + 3), "width": width})
        variants.append({"batch": 3, "height": height + 32, "width": max(33, width - 17)})
    return [Probe(_name(variant, "none"), variant, "none", seed) for seed, variant in enumerate(variants, start=1)]


def _within_limits(config: ExportConfig, probe: Probe) -> Probe:
    """`probe` with its sizes cut to what the model can take."""
    sizes = dict(probe.sizes)
    for name, limit in config.limits.items():
        if name in sizes:
            sizes[name] = max(limit.minimum, min(sizes[name], limit.maximum or sizes[name]))
    if isinstance(config, DecoderConfig) and "past_sequence" in sizes:
        room = config.max_positions - probe.greedy_steps
        sizes["sequence"] = max(1, min(sizes["sequence"], room - sizes["past_sequence"]))
    name = _name(sizes, probe.padding)
    name += ", last positions" if probe.last_positions else ""
    name += f", {probe.greedy_steps} greedy steps" if probe.greedy_steps else ""
    return replace(probe, name=name, sizes=MappingProxyType(sizes))


def _name(sizes: Mapping[str, int], padding: Padding) -> str:
    shape = ", ".join(f"{axis.replace('_sequence', '')} {size}" for axis, size in sizes.items())
    return shape if padding == "none" else f"{shape}, {padding} padding"
