"""Probes for the graphs of encoder-decoders."""

from __future__ import annotations

from hfexport.export_config import Seq2SeqConfig, Seq2SeqGraph, names_of
from hfexport.export_config.probes.plans import AFFORDABLE_TOKENS, GREEDY_STEPS, REORDERED_STEPS
from hfexport.export_config.probes.probe import Probe
from hfexport.export_config.probes.values import Padding

__all__ = ["seq2seq_probe", "seq2seq_probes"]

_UNNAMED = ""
"""Placeholder: probes are named when their sizes are cut to the limits of the graph."""

_SHAPES: tuple[tuple[int, int, int, int, Padding], ...] = (
    (1, 1, 1, 1, "none"),
    (3, 2, 1, 9, "right"),
    (1, 13, 5, 0, "none"),
    (3, 29, 2, 17, "right"),
    (3, 11, 7, 2, "left"),
)
"""Batch, encoder states, decoder sequence, decoder past, and padding of each probe."""


def seq2seq_probes(config: Seq2SeqGraph) -> list[Probe]:
    """Return probes for one graph: several sizes of each axis, the last positions, both sides of every threshold."""
    probes = [seq2seq_probe(config, *shape, seed) for seed, shape in enumerate(_SHAPES, start=1)]
    family = config.family
    last = None if family.max_encoder_positions is None else family.states_length(family.max_encoder_positions)
    read = min(last or AFFORDABLE_TOKENS, AFFORDABLE_TOKENS)
    written = min(family.max_decoder_positions or AFFORDABLE_TOKENS, AFFORDABLE_TOKENS)
    probes.append(seq2seq_probe(config, 1, read, 1, written - 1, "none", 6))
    probes.append(seq2seq_probe(config, 1, 5, written, 0, "none", 7))
    for threshold in config.thresholds.values():
        probes.append(seq2seq_probe(config, 1, threshold + 1, 3, 2, "none", 8))
        probes.append(seq2seq_probe(config, 2, 2 * threshold + 5, 3, 2, "right", 9))
    if config.task.generates and any(spec.role == "past_key" for spec in config.inputs):
        sizes = {
            axis: size
            for axis, size in (("batch", 3), ("encoder_sequence", _input_length(family, 11, 1)))
            if axis in config.prompt.free_axes
        }
        if config.prompt is config:
            sizes |= {"decoder_sequence": 1, "past_decoder_sequence": 0, "past_encoder_sequence": 0}
        probes.append(Probe(_UNNAMED, sizes, "right", 10, GREEDY_STEPS))
        probes.append(Probe(_UNNAMED, sizes, "right", 11, REORDERED_STEPS, reorders=True))
    return probes


def seq2seq_probe(
    config: Seq2SeqGraph, batch: int, states: int, decoder: int, past: int, padding: Padding, seed: int
) -> Probe:
    """Return one probe at the sizes of the graph's axes.

    A cross-attention cache is full, or empty if the past is empty.
    """
    length = _input_length(config.family, states, seed)
    # Cut the sizes here already, since the number of states depends on them.
    for limit in (limit for axis, limit in config.limits.items() if axis == "encoder_sequence"):
        length = max(limit.minimum, min(length, limit.maximum or length))
    fixed = config.family.states_axis
    states = fixed if isinstance(fixed, int) else config.family.states_length(length)
    asked = {
        **{"batch": batch, "encoder_sequence": length, "encoder_states": states, "decoder_sequence": decoder},
        **{"past_decoder_sequence": past, "past_encoder_sequence": states if past else 0},
    }
    named = names_of((*config.inputs, *config.outputs))
    return Probe(
        _UNNAMED,
        {axis: size for axis, size in asked.items() if axis in named},
        padding,
        seed,
        edge_tokens=seed in (3, 4),
    )


def _input_length(family: Seq2SeqConfig, states: int, seed: int) -> int:
    """Return an encoder input length that yields `states` states; the seed decides between several."""
    shortest, longer = family.encoder_length(states), family.encoder_length(states + 1)
    return shortest + (longer - shortest) * ((seed - 1) % 3) // 3
