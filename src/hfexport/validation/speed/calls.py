"""Choose the calls whose time is measured: batch 1 and 8, and the lengths that matter for each kind of graph.

| graph | sizes |
|---|---|
| text | 32, 128 and 512 tokens |
| decoder with cache | a prefill of 32, 128 and 512 tokens, and one token after 128 |
| decoder of an encoder-decoder | the first call, or one token after 128; 128 states of the encoder |
| image | the configured size |
| sound | the configured length; 5 seconds at 16 kHz if any length is allowed |

Every size is cut to what the model takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Final, Literal

from hfexport.export_config import ExportConfig, Seq2SeqGraph, axis_size, names_in, names_of
from hfexport.export_config.probes import Probe
from hfexport.export_config.probes.plans import within_limits
from hfexport.export_config.probes.seq2seq import seq2seq_probe

__all__ = ["BATCHES", "LENGTHS", "PAST", "Call", "calls_for", "fixed_call"]

BATCHES: Final = (1, 8)
LENGTHS: Final = (32, 128, 512)
PAST: Final = 128
"""Number of tokens in the cache of a decoding step, and of the encoder's states that a decoder reads."""

WITHOUT_CACHE: Final = 32
"""Number of tokens in a call of an encoder-decoder's decoder that has no cache."""

SAMPLES: Final = 80_000
"""Length of a sound that may have any length: 5 seconds at 16 kHz."""

FRAMES: Final = 500
"""Length of a spectrogram that may have any length: 5 seconds at 10 ms a frame."""

MAX_ELEMENTS: Final = 2**28
"""Largest number of values of all inputs, and of an output with one value for each token of the vocabulary."""

Kind = Literal["call", "prefill", "decode"]
_TOKENS: Final = ("token_ids", "sentence_ids", "image_text_ids")


@dataclass(frozen=True)
class Call:
    """One call of a graph.

    Attributes:
        graph: name of the graph.
        kind: `prefill` (a decoder reads its prompt), `decode` (it reads one token after a cache), or `call`.
        probe: sizes of the free axes, without padding.
        tokens: tokens in the batch that a decoder reads in this call; 0 for other graphs.
        reason: why the call is not timed; empty if it is.
    """

    graph: str
    kind: Kind
    probe: Probe
    tokens: int = 0
    reason: str = ""

    @property
    def name(self) -> str:
        """Return a short description, such as `batch 8, sequence 128`."""
        sizes = self.probe.sizes
        leading = {axis: size for axis, size in sizes.items() if axis.endswith("batch")}
        shown = {axis: size for axis, size in sizes.items() if size and axis not in leading}
        if self.kind == "decode":
            shown = {axis: size for axis, size in shown.items() if "past" in axis and "encoder_seq" not in axis}
        words = [
            f"{axis.replace('_sequence', '').replace('_', ' ')} {size}" for axis, size in (leading | shown).items()
        ]
        return ", ".join([*([] if self.kind == "call" else [self.kind]), *words])


def calls_for(config: ExportConfig) -> tuple[Call, ...]:
    """Return the calls of a graph at sizes that it takes, each once; calls that are too large have a reason."""
    drafts = _seq2seq(config) if isinstance(config, Seq2SeqGraph) else _single(config)
    found: dict[tuple[tuple[str, int], ...], Call] = {}
    for kind, draft in drafts:
        probe = within_limits(config, draft)
        found.setdefault(tuple(sorted(probe.sizes.items())), _call(config, kind, probe))
    return tuple(found.values())


def fixed_call(config: ExportConfig, sizes: Mapping[str, int]) -> Call:
    """Return the call of a graph at the sizes of an artifact that takes no others."""
    return _call(config, "call", Probe("", MappingProxyType({axis: sizes[axis] for axis in names_of(config.inputs)})))


def _call(config: ExportConfig, kind: Kind, probe: Probe) -> Call:
    shapes = [[axis_size(axis, probe.sizes) for axis in spec.axes] for spec in config.inputs]
    read = [shape for spec, shape in zip(config.inputs, shapes, strict=True) if spec.role in _TOKENS]
    tokens = prod(read[-1]) if kind != "call" and read else 0
    reason = ""
    if (inputs := sum(map(prod, shapes))) > MAX_ELEMENTS:
        reason = f"its inputs have {inputs:.2g} values"
    elif read and config.task.name.endswith(("-lm", "-lm-with-past")) and config.part != "encoder":
        name = next((spec.name for spec in reversed(config.inputs) if spec.role in _TOKENS), "")
        logits = prod(read[-1]) * config.vocabulary_of(name)
        reason = f"its logits have {logits:.2g} values" if logits > MAX_ELEMENTS else ""
    return Call(config.graph, kind, probe, tokens, reason)


def _single(config: ExportConfig) -> list[tuple[Kind, Probe]]:
    """Return calls of a graph that is the whole model."""
    with_past = any(spec.role == "past_key" for spec in config.inputs)
    lengths, names = _lengths(config), names_of(config.inputs)
    drafts: list[tuple[Kind, Probe]] = []
    for batch in BATCHES:
        sizes = {axis: _size(config, axis, batch) for axis in names}
        for length in LENGTHS if lengths else (1,):
            probe = Probe("", sizes | dict.fromkeys(lengths, length))
            drafts.append(("prefill" if with_past else "call", probe))
        if with_past:
            past = {axis: PAST for axis in names if "past" in axis}
            drafts.append(("decode", Probe("", sizes | dict.fromkeys(lengths, 1) | past)))
    return drafts


def _lengths(config: ExportConfig) -> list[str]:
    """Return the axes that count tokens."""
    axes = [spec.axes[-1] for spec in config.inputs if spec.role in _TOKENS]
    return list(dict.fromkeys(names_in(axis)[-1] for axis in axes if isinstance(axis, str)))


def _size(config: ExportConfig, axis: str, batch: int) -> int:
    """Return the size of an axis that counts no tokens."""
    if axis in {spec.axes[0] for spec in config.inputs}:
        return batch
    if "past" in axis:
        return 0
    for spec in config.inputs:
        if spec.role == "signal" and spec.axes[-1] == axis:
            return SAMPLES
        if spec.role == "signal" and axis in spec.axes:
            return FRAMES
    return config.trace_sizes.get(axis, 1)


def _seq2seq(config: Seq2SeqGraph) -> list[tuple[Kind, Probe]]:
    """Return calls of a graph of an encoder-decoder."""
    family, with_past = config.family, any(spec.role == "past_key" for spec in config.inputs)
    reads = config.part != "decoder"
    states = _states(config) if reads else (PAST,)
    new = 1 if config.task.with_past else WITHOUT_CACHE
    drafts: list[tuple[Kind, Probe]] = []
    for batch in BATCHES:
        if reads or not with_past:
            kind: Kind = "call" if config.part == "encoder" or not config.task.with_past else "prefill"
            drafts += [(kind, seq2seq_probe(config, batch, length, new, 0, "none", 1)) for length in states]
        if with_past:
            length = family.states_length(SAMPLES) if _hears(config) and reads else PAST
            drafts.append(("decode", seq2seq_probe(config, batch, length, 1, PAST, "none", 1)))
    return drafts


def _states(config: Seq2SeqGraph) -> Sequence[int]:
    return (config.family.states_length(SAMPLES),) if _hears(config) else LENGTHS


def _hears(config: Seq2SeqGraph) -> bool:
    """Return whether the encoder reads sound of any length."""
    return any(
        spec.role == "signal"
        and isinstance(config.family.encoder_axis, str)
        and config.family.encoder_axis in spec.axes
        for spec in config.family.encoder_inputs
    )
