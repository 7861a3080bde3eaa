"""Fixed sizes of a Neuron artifact, chosen from the requested sizes and the model's limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hfexport.backends.neuron.padded import generates_padded
from hfexport.backends.neuron.plan import PartPlan, plan_encoder_decoder, plan_model
from hfexport.checkpoint.json_file import read_json
from hfexport.errors import CheckpointError, UnsupportedError
from hfexport.export_config import ExportConfig, Seq2SeqConfig, names_of
from hfexport.export_config.tasks import TASKS

__all__ = ["Sizes", "choose_sizes", "plan_parts", "without_cache"]

Warn = Callable[[str], None]

MAX_BEAMS: Final = 1024
"""Largest number of beams that is read from a checkpoint."""


def _silent(text: str) -> None:
    del text


@dataclass(frozen=True)
class Sizes:
    """Requested sizes.

    Attributes:
        batch: number of inputs in a batch.
        sequence: number of tokens, also of an encoder's text.
        decoder_length: maximum number of tokens to generate; `None` for `sequence`.
        beams: beams for each text; `None` for the number in the checkpoint's generation config.
        free_batch: accept any batch size (dynamic batch size).
        one_graph: compile an encoder-decoder without a head as one graph instead of its encoder alone.
    """

    batch: int = 1
    sequence: int = 128
    decoder_length: int | None = None
    beams: int | None = None
    free_batch: bool = False
    one_graph: bool = False

    @property
    def written(self) -> int:
        """Return the maximum number of tokens to generate."""
        return self.decoder_length or self.sequence


def without_cache(config: ExportConfig) -> ExportConfig:
    """Return the interface without a cache, since sizes on Neuron are fixed and a cache grows.

    Raises:
        UnsupportedError: the model's task has a cache and no counterpart without one.
    """
    if not config.task.with_past:
        return config
    name = config.task.name.removesuffix("-with-past")
    if name not in type(config).tasks:
        raise UnsupportedError(
            f"Neuron: task {config.task.name} has a cache, which grows; sizes are fixed on Neuron",
            remedy="Choose a task without past.",
        )
    return type(config)(config.config, TASKS[name])


def choose_sizes(config: ExportConfig, asked: Sizes, warn: Warn) -> dict[str, int]:
    """Return the sizes of all named axes, reduced to the model's limits where more was requested."""
    read = asked.sequence
    requested = {"batch": asked.batch, "sequence": read, "encoder_sequence": read, "decoder_sequence": asked.written}
    sizes: dict[str, int] = {}
    for axis in names_of(config.inputs):
        size = requested.get(axis, config.trace_sizes[axis])
        limit = config.limits.get(axis)
        most = size if limit is None or limit.maximum is None else limit.maximum
        if size > most:
            warn(f"Neuron: {axis} {size} is more than the model supports; the artifact uses {most}")
        sizes[axis] = min(size, most)
    return sizes


def plan_parts(config: ExportConfig, checkpoint: Path, asked: Sizes, warn: Warn = _silent) -> tuple[PartPlan, ...]:
    """Plan the graphs to compile at the requested sizes.

    Args:
        config: the model's interface, see `without_cache`.
        checkpoint: folder of the checkpoint, whose generation config may give the number of beams.
        asked: requested sizes.
        warn: called for each size that the model does not support.
    """
    free_batch = asked.free_batch
    if not generates_padded(config):
        graph = _one_graph(config, asked, warn)
        if free_batch and "batch" not in graph.free_axes:
            warn("Neuron: the model supports no other batch size, so neither does the artifact")
            free_batch = False
        return plan_model(graph, choose_sizes(graph, asked, warn), free_batch=free_batch)
    most = getattr(config.config, "max_position_embeddings", None)
    return plan_encoder_decoder(
        config,
        batch=asked.batch,
        read=_at_most(most, "sequence-length", asked.sequence, warn),
        written=_at_most(most, "neuron-decoder-length", asked.written, warn),
        beams=asked.beams or _usual_beams(checkpoint),
        free_batch=free_batch,
    )


def _one_graph(config: ExportConfig, asked: Sizes, warn: Warn) -> ExportConfig:
    """Return the model as one graph; for an encoder-decoder without a head, its encoder."""
    (whole,) = config.graphs("single")
    if config.task.name != "default" or asked.one_graph or not isinstance(config, Seq2SeqConfig):
        return whole
    warn(
        "Neuron: only the encoder of this encoder-decoder without a head is compiled; layout single compiles both in one graph"
    )
    with_cache = type(config)(config.config, TASKS["default-with-past"])
    return next(graph for graph in with_cache.graphs("split") if graph.part == "encoder")


def _at_most(most: int | None, name: str, asked: int, warn: Warn) -> int:
    if most is None or asked <= most:
        return asked
    warn(f"Neuron: {name} {asked} is more than the model supports; the artifact uses {most}")
    return int(most)


def _usual_beams(checkpoint: Path) -> int:
    """Return the number of beams in the checkpoint's generation config; 1 if it has none.

    Raises:
        CheckpointError: the file is damaged or too large, or the number is out of range.
    """
    path = checkpoint / "generation_config.json"
    beams = read_json(path).get("num_beams") if path.is_file() else None
    if beams is None:
        return 1
    if type(beams) is not int or not 1 <= beams <= MAX_BEAMS:
        raise CheckpointError(
            f"{path}: num_beams is {str(beams)[:40]!r}, not a number from 1 to {MAX_BEAMS}",
            remedy="Correct it, or give neuron-beams.",
        )
    return beams
