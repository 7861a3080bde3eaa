"""Attentions and hidden states as outputs: their number and axes, measured on the model without data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from hfexport.errors import UnsupportedError
from hfexport.export_config import LAYOUTS, ExportConfig, Limit, Seq2SeqGraph, TensorSpec
from hfexport.export_config.probes import make_inputs
from hfexport.modeling.inferred.dry_run import DryModel, Refused, axes_between
from hfexport.modeling.inferred.measure import known_axes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["with_more_outputs"]

_DERIVED: Final = ("encoder_states",)
"""Axes that depend on the length of the encoder's input."""


def with_more_outputs(config: ExportConfig, kinds: Sequence[str], build: Callable[[], DryModel]) -> ExportConfig:
    """Return `config` whose graphs also return outputs of `kinds`, named as in transformers with an index.

    Args:
        config: export config of a whole model.
        kinds: some of `attentions` and `hidden_states`.
        build: builds the model; each graph needs its own, since that of a decoder loses its encoder.

    Raises:
        UnsupportedError: no graph of the model returns outputs of a kind.
    """
    graphs = {
        branch.graph: branch for layout in LAYOUTS for graph in config.graphs(layout) for branch in graph.branches
    }
    found = {name: _measured(graph, kinds, build()) for name, graph in graphs.items()}
    for kind in kinds:
        if not any(spec.name.partition(".")[0].endswith(kind) for specs in found.values() for spec in specs):
            raise UnsupportedError(
                f"model_type {config.config.model_type!r} gives no {kind} for task {config.task.name}",
                remedy=f"Leave {kind} out of outputs.",
            )
    if "decoder_with_past_model" in found:
        found["decoder_model_merged"] = found["decoder_with_past_model"]
    return config.with_more_outputs(found)


def _measured(config: ExportConfig, kinds: Sequence[str], dry: DryModel) -> tuple[TensorSpec, ...]:
    sizes = {axis: config.trace_sizes[axis] for axis in config.free_axes}
    grown = {axis: _grown(config, axis, 2 * number + 1) for number, axis in enumerate(sizes)}
    try:
        one, other = (dry.run_further(config, _arrays(config, at), kinds) for at in (sizes, grown))
    except Refused as error:
        raise UnsupportedError(
            f"model_type {config.config.model_type!r} does not run with {', '.join(kinds)} as outputs: {error}",
            remedy="Leave them out of outputs, and set output_attentions and output_hidden_states in config.json to false.",
        ) from error
    sizes, grown = _with_derived(config, sizes), _with_derived(config, grown)
    specs = []
    for name, given in one.items():
        axes = axes_between(given.shape, sizes, other[name].shape, grown)
        specs.append(TensorSpec(name, known_axes(axes), "float", "output"))
    return tuple(specs)


def _grown(config: ExportConfig, axis: str, step: int) -> int:
    size, limit = config.trace_sizes[axis], config.limits.get(axis, Limit())
    if axis == "past_encoder_sequence" or (limit.maximum is not None and size + step > limit.maximum):
        # A cache of the encoder's states has their length.
        return max(limit.minimum, size - 1)
    return size + step


def _arrays(config: ExportConfig, sizes: Mapping[str, int]) -> Any:
    return make_inputs(config, {**config.trace_sizes, **sizes}, "fp32", padding="right", seed=7)


def _with_derived(config: ExportConfig, sizes: Mapping[str, int]) -> dict[str, int]:
    known = dict(sizes)
    if isinstance(config, Seq2SeqGraph) and "encoder_sequence" in sizes:
        known.setdefault(_DERIVED[0], config.family.states_length(sizes["encoder_sequence"]))
    return known
