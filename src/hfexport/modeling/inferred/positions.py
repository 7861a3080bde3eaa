"""Measure how many positions a model has, if it rejects the number that a built-in export config computes."""

from __future__ import annotations

from typing import Final

from hfexport.export_config import ExportConfig, Seq2SeqConfig
from hfexport.export_config.arrays import Arrays
from hfexport.export_config.probes import make_inputs
from hfexport.modeling.inferred.dry_run import DryModel

__all__ = ["measured_positions"]

_AFFORDABLE: Final = 512
"""Largest number of tokens in a run; probes of validation have the same limit."""

_AXES: Final = {
    "sequence": "max_positions",
    "encoder_sequence": "max_encoder_positions",
    "decoder_sequence": "max_decoder_positions",
}
"""By axis, the property of the export config with its number of positions."""


def measured_positions(config: ExportConfig, dry: DryModel) -> dict[str, int]:
    """Return the numbers of positions that the model has where they are smaller than those of `config`.

    The model runs at the last position, and by bisection at earlier ones if it fails there.

    Args:
        config: built-in export config of the model.
        dry: the model.

    Returns:
        Numbers for `ExportConfig.with_measured_positions`; empty if the model takes the last positions, or fails at any
            length and so for another reason.
    """
    graph = config.graphs("single")[0] if isinstance(config, Seq2SeqConfig) else config
    found: dict[str, int] = {}
    for axis, name in _AXES.items():
        declared = getattr(config, name, None)
        if axis not in graph.free_axes or not declared:
            continue

        def takes(size: int, axis: str = axis) -> bool:
            return dry.takes(_inputs(graph, axis, size))

        refused = declared if any(spec.role == "position_ids" for spec in graph.inputs) else min(declared, _AFFORDABLE)
        taken = min(graph.trace_sizes[axis], refused)
        if takes(refused) or not takes(taken):
            continue
        while refused - taken > 1:
            middle = (refused + taken) // 2
            refused, taken = (refused, middle) if takes(middle) else (middle, taken)
        found[name] = taken
    return found


def _inputs(graph: ExportConfig, axis: str, size: int) -> Arrays:
    """Return inputs without a cache that use `size` positions: of one token if position ids are an input."""
    sizes = {name: 0 if name.startswith("past_") else traced for name, traced in graph.trace_sizes.items()}
    by_ids = any(spec.role == "position_ids" for spec in graph.inputs)
    sizes |= {"batch": 1, axis: 1 if by_ids else size}
    arrays = dict(make_inputs(graph, sizes, "fp32", padding="none", seed=7))
    if by_ids:
        arrays["position_ids"][:] = size - 1
    return {name: array for name, array in arrays.items() if not name.startswith("past_key_values.")}
