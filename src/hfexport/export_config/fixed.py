"""Export configs whose graphs have chosen sizes on some of their free axes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, cast

from hfexport.errors import InputsError
from hfexport.export_config.base import ExportConfig, Limit
from hfexport.export_config.decoder import DecoderConfig
from hfexport.export_config.seq2seq import STATES, Seq2SeqGraph

__all__ = ["fix_graphs", "with_fixed_sizes"]


def with_fixed_sizes(config: ExportConfig, sizes: Mapping[str, int]) -> ExportConfig:
    """Return a copy of `config` whose graph has fixed sizes.

    Args:
        config: config of one graph without branches.
        sizes: sizes by axis; axes that the graph does not have are ignored.

    Returns:
        A config of a subclass with `fixed_sizes`, and with limits and trace sizes that follow from them.
    """
    fixed = {axis: size for axis, size in sizes.items() if axis in config.free_axes}
    if isinstance(config, Seq2SeqGraph) and STATES in config.free_axes and "encoder_sequence" in sizes:
        fixed[STATES] = config.family.states_length(sizes["encoder_sequence"])
    if not fixed:
        return config
    limits = {**config.limits, **{axis: Limit(size, size) for axis, size in fixed.items()}}
    trace_sizes = {**config.trace_sizes, **fixed}
    values = {
        "fixed_sizes": fixed,
        "limits": property(lambda _: limits),
        "trace_sizes": property(lambda _: trace_sizes),
        "__module__": type(config).__module__,
    }
    # Not copy.copy: some classes choose a subclass when they are created.
    changed: Any = object.__new__(type(f"Fixed{type(config).__name__}", (type(config),), values))
    vars(changed).update(vars(config))
    return cast("ExportConfig", changed)


def _misfits(config: ExportConfig, sizes: Mapping[str, int]) -> list[str]:
    """Return the reasons why the model cannot take `sizes` on axes of its graph, for the user."""
    problems = []
    for axis, size in sizes.items():
        limit = config.limits.get(axis, Limit())
        if axis not in config.free_axes or (limit.minimum <= size and (limit.maximum is None or size <= limit.maximum)):
            continue
        most = "" if limit.maximum is None else f" and at most {limit.maximum}"
        problems.append(f"{axis} is {size}, but this model takes at least {limit.minimum}{most}")
    total = sizes.get("sequence", 1) + sizes.get("past_sequence", 0)
    if not problems and isinstance(config, DecoderConfig) and config.max_positions and total > config.max_positions:
        problems.append(
            f"past_sequence and sequence are {total} together, but this model has {config.max_positions} positions"
        )
    return problems


def fix_graphs(graphs: Sequence[ExportConfig], sizes: Mapping[str, int]) -> tuple[ExportConfig, ...]:
    """Return the graphs with fixed sizes.

    Args:
        graphs: graphs of one model, none of which has branches.
        sizes: the input `fixed`, sizes by axis.

    Raises:
        InputsError: no graph has an axis of that name, or the model does not take a size.
    """
    axes = tuple(dict.fromkeys(axis for config in graphs for axis in config.free_axes))
    problems = []
    for axis, size in sizes.items():
        if axis in axes:
            continue
        close = difflib.get_close_matches(axis, axes, n=1)
        hint = f": did you mean {close[0]}?" if close else "."
        free = f"Its free axes are {', '.join(axes)}" if axes else "It has no free axes"
        problems.append(f"fixed is '{axis}={size}', but the model's graph has no free axis {axis}{hint} {free}")
    for config in graphs:
        problems += [f"fixed: {problem}" for problem in _misfits(config, sizes)]
    if problems:
        raise InputsError(list(dict.fromkeys(problems)))
    return tuple(with_fixed_sizes(config, sizes) for config in graphs)
