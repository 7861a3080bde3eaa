"""Choose the probes of an artifact: shapes and paddings that export did not see, within the limits of its config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from types import MappingProxyType

from hfexport.export_config import DecoderConfig, EncoderConfig, ExportConfig, VisionConfig, axis_size
from hfexport.export_config.probes.probe import Probe
from hfexport.export_config.probes.values import Padding
from hfexport.export_config.windows import unasked_thresholds

__all__ = [
    "axis_probes",
    "decoder_probes",
    "encoder_probes",
    "fixed_probes",
    "validation_probes",
    "vision_probes",
    "within_limits",
]

AFFORDABLE_TOKENS = 512
"""Largest length of a probe at the model's last position. The cost of eager attention grows too fast for longer
ones."""

AFFORDABLE_CACHE_ELEMENTS = 2**24
"""Largest number of values in the cache of a probe that exceeds a long attention window."""

GREEDY_STEPS = 16

REORDERED_STEPS = 6
"""Steps of a greedy decoding in which rows of the batch change places half-way."""


def validation_probes(config: ExportConfig) -> tuple[Probe, ...]:
    """Return probes at shapes and paddings that export did not see, within the limits of `config`.

    On axes that the user fixed, all probes have the fixed size.
    """
    if config.fixed_sizes and not config.free_axes:
        return fixed_probes(config, config.fixed_sizes)
    probes = config.probes()
    if set(config.fixed_sizes) - {"batch"}:  # generation needs calls of several lengths
        probes = [probe for probe in probes if not probe.greedy_steps]
    if "sequence" in config.fixed_sizes and config.task.with_past:
        # On the right of a cache, padding would hide all new tokens of a short call.
        probes = [replace(probe, padding="left" if probe.padding == "right" else probe.padding) for probe in probes]
    probes = [*probes, *_probes_past_windows(config, probes)]
    # After cutting to the limits of a small model, two probes may be the same.
    asked: dict[str, Probe] = {}
    for probe in (within_limits(config, probe) for probe in probes):
        asked.setdefault(probe.name, probe)
    return tuple(asked.values())


def _probes_past_windows(config: ExportConfig, probes: Sequence[Probe]) -> list[Probe]:
    """Return probes of one token after a cache longer than each window that `probes` do not exceed, if it is small."""
    if not {"sequence", "past_sequence"} <= set(config.free_axes):
        return []
    found = []
    for window in dict.fromkeys(unasked_thresholds(config, [probe.sizes for probe in probes]).values()):
        sizes = {**dict.fromkeys(config.free_axes, 1), "past_sequence": window + 3}
        cache = [spec for spec in config.inputs if spec.role in ("past_key", "past_value")]
        elements = sum(prod(axis_size(axis, sizes) for axis in spec.axes) for spec in cache)
        if elements <= AFFORDABLE_CACHE_ELEMENTS:
            found.append(Probe(_name(sizes, "none"), sizes, "none", 13))
    return found


def fixed_probes(config: ExportConfig, sizes: Mapping[str, int]) -> tuple[Probe, ...]:
    """Return probes for an artifact of fixed sizes: only values and padding vary."""
    if not any(spec.role == "attention_mask" for spec in config.inputs):
        return tuple(Probe(f"{_name(sizes, 'none')}, seed {seed}", sizes, "none", seed) for seed in (1, 2))
    return tuple(
        Probe(_name(sizes, padding), sizes, padding, seed=seed, edge_tokens=seed == 1)
        for seed, padding in enumerate(config.fixed_paddings, start=1)
        if padding != "right" or not _hides_all(sizes)
    )


def _hides_all(sizes: Mapping[str, int]) -> bool:
    """Return whether padding on the right of a cache hides all new tokens, so that nothing could be compared."""
    past, new = sizes.get("past_sequence", 0), sizes.get("sequence", 0)
    return sizes.get("batch") == 1 and past > 0 and (past + new) // 3 >= new


def encoder_probes(config: EncoderConfig) -> list[Probe]:
    """Return probes at several batches and lengths, at the last position, and past each threshold."""
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
    for threshold in config.thresholds.values():
        # A little more than twice the threshold: the second window, block or bucket is full, and the next is partial.
        probes.append(probe(1, threshold + 1, "none", 6, edge=True))
        probes.append(probe(2, 2 * threshold + 5, "right", 7))
    return probes


def decoder_probes(config: DecoderConfig) -> list[Probe]:
    """Return probes of prefills and decoding steps, at the last position, past each threshold, and of generation."""

    def probe(
        batch: int, sequence: int, past: int, padding: Padding, seed: int, edge: bool = False, steps: int = 0
    ) -> Probe:
        sizes = {"batch": batch, "sequence": sequence}
        if config.task.with_past:
            sizes["past_sequence"] = past
        return Probe(_name(sizes, padding), sizes, padding, seed, steps, edge_tokens=edge)

    last = min(config.max_positions or AFFORDABLE_TOKENS, AFFORDABLE_TOKENS)
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
    for threshold in config.thresholds.values():
        # In one call, and one token at a time; the second window is full, and the next is partial.
        probes.append(probe(2, 2 * threshold + 5, 0, "left", 10))
        probes.append(
            probe(2, 1, threshold + 3, "left", 11) if config.task.with_past else probe(1, threshold + 1, 0, "none", 11)
        )
    if config.max_positions and any(spec.role == "position_ids" for spec in config.inputs):
        probes.append(replace(probe(1, 5, 4, "none", 9), last_positions=True))
    if config.task.generates:
        probes.append(probe(3, 6, 0, "left", 8, steps=GREEDY_STEPS))
        probes.append(replace(probe(3, 4, 0, "left", 12, steps=REORDERED_STEPS), reorders=True))
    return probes


def axis_probes(config: ExportConfig) -> list[Probe]:
    """Return probes that vary each free axis, independent of its name, and exceed each threshold."""
    masked = any(spec.role == "attention_mask" for spec in config.inputs)
    with_past = any(spec.role == "past_key" for spec in config.inputs)
    away: Padding = "left" if with_past else "right"
    paddings: tuple[Padding, ...] = ("none", away, "none", "right") if masked else ("none",) * 4
    probes = []
    for seed, padding in enumerate(paddings, start=1):
        sizes = {axis: _size_in_turn(config, axis, seed - 1) for axis in config.free_axes}
        probes.append(Probe(_name(sizes, padding), sizes, padding, seed, edge_tokens=seed > 2))
    last = {axis: min(limit.maximum, AFFORDABLE_TOKENS) for axis, limit in config.limits.items() if limit.maximum}
    past_thresholds = {axis: threshold + 5 for axis, threshold in config.thresholds.items()}
    for axis, size in [*last.items(), *past_thresholds.items()]:
        if axis not in config.free_axes:
            continue
        sizes = {name: _size_in_turn(config, name, 0) for name in config.free_axes} | {axis: size}
        probes.append(Probe(_name(sizes, "none"), sizes, "none", len(probes) + 1))
    if config.task.generates and with_past and _can_go_on(config):
        sizes = {"batch": 3, "sequence": 6, "past_sequence": 0}
        probes.append(Probe(_name(sizes, "left"), sizes, "left", len(probes) + 1, GREEDY_STEPS))
        sizes = {**sizes, "sequence": 4}
        probes.append(Probe(_name(sizes, "left"), sizes, "left", len(probes) + 1, REORDERED_STEPS, reorders=True))
    return probes


def _can_go_on(config: ExportConfig) -> bool:
    """Return whether the inputs of the next decoding step are known."""
    names = {spec.name for spec in config.inputs if spec.role not in ("past_key", "past_value")}
    return {"input_ids", "attention_mask"} <= names <= {"input_ids", "attention_mask", "position_ids"}


def _size_in_turn(config: ExportConfig, axis: str, turn: int) -> int:
    """Return the size of a free axis in probe number `turn` (0 to 3), chosen by the axis's position."""
    leading = list(dict.fromkeys(spec.axes[0] for spec in config.inputs))
    if axis in leading:
        # If texts and images have separate batch axes, their sizes differ.
        return ((1, 3, 1, 3) if leading.index(axis) == 0 else (1, 2, 3, 1))[turn]
    if "past" in axis:
        return (0, 9, 1, 0)[turn]
    if any(spec.role in ("token_ids", "image_text_ids") and spec.axes[-1] == axis for spec in config.inputs):
        return (config.limits[axis].minimum if axis in config.limits else 1) + (0, 1, 12, 28)[turn]
    traced = config.trace_sizes[axis]
    return max(1, traced + (-1, 1, -traced // 3, traced // 2 + 3)[turn])


def vision_probes(config: VisionConfig) -> list[Probe]:
    """Return probes at the configured size, at other sizes if free, and with padded images if there is a mask."""
    sizes = dict(config.trace_sizes)
    masked = any(spec.role == "pixel_mask" for spec in config.inputs)
    free = [axis for axis in ("height", "width") if axis in config.free_axes]
    fixed = {name: size for name, size in sizes.items() if name in config.free_axes or name == "batch"}
    variants = [fixed | {"batch": 1}, fixed | {"batch": 3}]
    if free:
        height, width, step = sizes["height"], sizes["width"], config.size_step
        variants.append({"batch": 1, "height": (height // 2 + 3) // step * step, "width": width})
        variants.append({"batch": 3, "height": height + 32, "width": (width - 17) // step * step})
    paddings: tuple[Padding, ...] = ("none", "right") * 2 if masked else ("none",) * 4
    return [
        Probe(_name(variant, padding), variant, padding, seed)
        for seed, (variant, padding) in enumerate(zip(variants, paddings, strict=False), start=1)
    ]


def within_limits(config: ExportConfig, probe: Probe) -> Probe:
    """Return `probe` with its sizes cut to the limits of the model."""
    sizes = dict(probe.sizes)
    for name, limit in config.limits.items():
        if name in sizes:
            sizes[name] = max(limit.minimum, min(sizes[name], limit.maximum or sizes[name]))
    sizes = config.within_positions(sizes, probe.greedy_steps)
    name = _name(sizes, probe.padding)
    name += ", last positions" if probe.last_positions else ""
    name += f", {probe.greedy_steps} greedy steps" if probe.greedy_steps else ""
    name += ", rows reordered" if probe.reorders else ""
    return replace(probe, name=name, sizes=MappingProxyType(sizes))


def _name(sizes: Mapping[str, int], padding: Padding) -> str:
    shape = ", ".join(f"{axis.replace('_sequence', '')} {size}" for axis, size in sizes.items())
    return shape if padding == "none" else f"{shape}, {padding} padding"
