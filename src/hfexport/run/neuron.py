"""Neuron steps of a run: find the SDK's interpreter, plan fixed sizes, compile, and validate the artifact.

Called by `hfexport.run.pipeline`, which owns the stages, the folders and the manifest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hfexport import __version__
from hfexport.backends.neuron.environment import check_environment, find_python
from hfexport.backends.neuron.options import NeuronOptions, NeuronRun, Target, separate_weights_bytes
from hfexport.backends.neuron.padded import generates_padded
from hfexport.backends.neuron.plan import DTYPE, PartPlan, plan_encoder_decoder, plan_model
from hfexport.errors import UnsupportedError
from hfexport.export_config import ExportConfig, Seq2SeqConfig, names_of
from hfexport.export_config.tasks import TASKS
from hfexport.run.inputs import Inputs

if TYPE_CHECKING:
    from hfexport.backends.neuron.artifact import NeuronArtifact
    from hfexport.validation import ArtifactVerdict
    from hfexport.validation.neuron import NeuronReference

__all__ = ["NeuronExport", "fixed_sizes", "plan", "prepare", "revalidate", "static_config"]


def prepare(
    inputs: Inputs, folder: Path, env: Mapping[str, str], listen: Callable[[Iterable[str]], None]
) -> tuple[NeuronRun, dict[str, str]]:
    """Find the SDK's interpreter and check, before any work, that it has what the target needs.

    Returns:
        The run to export with, and the versions found.

    Raises:
        NeuronError: a package is missing or wrong; the remedy says what to do.
    """
    target: Target = "inf2" if inputs.neuron_target == "inf2" else "inf1"
    options = NeuronOptions(
        target=target,
        python=find_python(inputs.neuron_python, target),
        compiler_args=inputs.neuron_compiler_args or (),
        timeout_s=inputs.neuron_timeout,
        dynamic_batch_size=inputs.neuron_dynamic_batch_size,
        minimum_segment_size=inputs.neuron_minimum_segment_size,
        fallback=inputs.neuron_fallback,
        optimizations=inputs.neuron_optimizations or (),
        separate_weights_bytes=separate_weights_bytes(inputs.neuron_separate_weights),
    )
    folder.mkdir(parents=True)
    run = NeuronRun(options, folder.resolve(), env, listen)
    return run, check_environment(run)


def static_config(config: ExportConfig) -> ExportConfig:
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


def fixed_sizes(config: ExportConfig, inputs: Inputs, warn: Callable[[str], None]) -> dict[str, int]:
    """Return the sizes of all named axes from the inputs, reduced to the model's limits where they are larger."""
    read, written = inputs.sequence_length, inputs.neuron_decoder_length or inputs.sequence_length
    asked = {"batch": inputs.batch_size, "sequence": read, "encoder_sequence": read, "decoder_sequence": written}
    sizes: dict[str, int] = {}
    for axis in names_of(config.inputs):
        size = asked.get(axis, config.trace_sizes[axis])
        limit = config.limits.get(axis)
        most = size if limit is None or limit.maximum is None else limit.maximum
        if size > most:
            warn(f"Neuron: {axis} {size} is more than the model supports; the artifact uses {most}")
        sizes[axis] = min(size, most)
    return sizes


def plan(config: ExportConfig, checkpoint: Path, inputs: Inputs, warn: Callable[[str], None]) -> tuple[PartPlan, ...]:
    """Plan the graphs to compile, at the sizes given in the inputs."""
    free_batch = inputs.neuron_dynamic_batch_size
    if not generates_padded(config):
        graph = _one_graph(config, inputs, warn)
        if free_batch and "batch" not in graph.free_axes:
            warn("Neuron: the model supports no other batch size, so neither does the artifact")
            free_batch = False
        return plan_model(graph, fixed_sizes(graph, inputs, warn), free_batch=free_batch)
    most = getattr(config.config, "max_position_embeddings", None)
    return plan_encoder_decoder(
        config,
        batch=inputs.batch_size,
        read=_at_most(most, "sequence-length", inputs.sequence_length, warn),
        written=_at_most(most, "neuron-decoder-length", inputs.neuron_decoder_length or inputs.sequence_length, warn),
        beams=inputs.neuron_beams or _usual_beams(checkpoint),
        free_batch=free_batch,
    )


def _one_graph(config: ExportConfig, inputs: Inputs, warn: Callable[[str], None]) -> ExportConfig:
    """Return the model as one graph; for an encoder-decoder without a head, its encoder."""
    (whole,) = config.graphs("single")
    if config.task.name != "default" or inputs.layout == "single" or not isinstance(config, Seq2SeqConfig):
        return whole
    warn(
        "Neuron: only the encoder of this encoder-decoder without a head is compiled; layout single compiles both in one graph"
    )
    with_cache = type(config)(config.config, TASKS["default-with-past"])
    return next(graph for graph in with_cache.graphs("split") if graph.part == "encoder")


def _at_most(most: int | None, name: str, asked: int, warn: Callable[[str], None]) -> int:
    if most is None or asked <= most:
        return asked
    warn(f"Neuron: {name} {asked} is more than the model supports; the artifact uses {most}")
    return int(most)


def _usual_beams(checkpoint: Path) -> int:
    """Return the number of beams in the checkpoint's generation config; 1 if it has none."""
    try:
        content = json.loads((checkpoint / "generation_config.json").read_text(encoding="utf-8"))
        return max(1, int(content.get("num_beams") or 1))
    except (OSError, ValueError, TypeError, AttributeError):
        return 1


@dataclass(frozen=True)
class NeuronExport:
    """Compile and validate one artifact.

    Attributes:
        run: run options, from `prepare`.
        inputs: the user's inputs.
        checkpoint: folder of the checkpoint.
        config: the interface, without a cache.
        parts: graphs to compile, from `plan`.
        staging: folder for files that are not part of the artifact.
        source: identity of the checkpoint, which is stored in the artifact.
    """

    run: NeuronRun
    inputs: Inputs
    checkpoint: Path
    config: ExportConfig
    parts: tuple[PartPlan, ...]
    staging: Path
    source: str

    def export(self, folder: Path) -> NeuronArtifact:
        """Compile into `folder`, which must be empty.

        Raises:
            HfexportError: see `hfexport.backends.neuron.protocol`.
        """
        from hfexport.backends.base import ExportJob
        from hfexport.backends.neuron import NeuronBackend

        metadata = {
            "producer": "hfexport",
            "version": __version__,
            "source": self.source,
            "task": self.config.task.name,
        }
        job = ExportJob(
            self.checkpoint,
            self.config,
            DTYPE,
            folder,
            metadata,
            type(self.config).default_opset,
            neuron=replace(self.run, parts=self.parts),
        )
        return NeuronBackend().export(job)

    def start_reference(self) -> NeuronReference:
        """Start computing the unpatched model's outputs in a child process."""
        from hfexport.validation.neuron import start_neuron_reference

        folder = self.staging / "reference"
        return start_neuron_reference(self.checkpoint, self.parts, folder=folder, env=self.run.env)

    def validate(self, artifact: NeuronArtifact, reference: NeuronReference) -> ArtifactVerdict:
        """Validate the artifact with the checks of `hfexport.validation.neuron`."""
        from hfexport.validation import resolve_tolerance
        from hfexport.validation.neuron import validate_neuron

        return validate_neuron(
            artifact,
            reference,
            resolve_tolerance(self.config, DTYPE, self.inputs.atol, self.inputs.rtol),
            min_compiled=self.inputs.neuron_min_compiled,
            folder=self.staging / "validation",
            env=self.run.env,
        )


def revalidate(
    run: NeuronRun, inputs: Inputs, checkpoint: Path, config: ExportConfig, folder: Path, warn: Callable[[str], None]
) -> ArtifactVerdict:
    """Validate an existing artifact as far as possible without compiling again.

    Args:
        run: run options, from `prepare`.
        inputs: inputs with the sizes that the artifact was made for.
        checkpoint: folder of the checkpoint that the artifact was made from.
        config: the model's interface.
        folder: folder of the artifact's files.
        warn: called with warnings.

    Raises:
        ValidationError: the files are no Neuron artifact, or could not be validated.
    """
    from hfexport.backends.neuron import reopen
    from hfexport.validation.neuron import start_neuron_reference, validate_on_device

    parts = plan(static_config(config), checkpoint, inputs, warn)
    artifact = reopen(folder, replace(run, parts=parts))
    reference = start_neuron_reference(checkpoint, parts, folder=run.folder / "reference", env=run.env)
    try:
        return validate_on_device(artifact, reference, folder=run.folder / "validation")
    finally:
        for part in reference.parts.values():
            part.worker.stop()
