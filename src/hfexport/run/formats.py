"""Make the back end and the validator of each requested format from the inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from hfexport.errors import NeuronError, UnsupportedError
from hfexport.run.graph_cache import templates_for
from hfexport.run.inputs import Inputs
from hfexport.run.observer import Observer
from hfexport.run.stages import Stages

if TYPE_CHECKING:
    from hfexport.backends.base import Backend, VariantMaker
    from hfexport.backends.neuron.options import NeuronOptions
    from hfexport.backends.origins import Origins
    from hfexport.validation.validators import References, Subject, Validator

__all__ = ["MAKERS", "FormatRun", "Setup", "open_format"]


@dataclass(frozen=True)
class Setup:
    """Inputs and services of a run that its back ends use.

    Attributes:
        inputs: the user's inputs.
        staging: folder for unfinished files.
        env: environment; child processes get an allow-list of it.
        observer: receives notes, warnings and the output of other programs.
        stages: records steps.
        verifying: existing artifacts are verified, none are made.
        on_origins: called for each graph whose weights can be found in the checkpoint without loading the model.
    """

    inputs: Inputs
    staging: Path
    env: Mapping[str, str]
    observer: Observer
    stages: Stages
    verifying: bool = False
    on_origins: Callable[[Origins], None] | None = None


@dataclass(frozen=True)
class FormatRun:
    """Back end of one format, the validator of its artifacts, and the maker of its variants, if it has any."""

    backend: Backend
    validator: Callable[[Subject, References], Validator]
    variants: VariantMaker | None = None


def open_format(name: str, setup: Setup) -> FormatRun:
    """Return the format `name`, ready to make or to verify artifacts.

    Raises:
        NeuronError: the SDK is missing or wrong; the remedy says what to do.
        UnsupportedError: the same, for an existing artifact.
    """
    return MAKERS[name](setup)


def _onnx(setup: Setup) -> FormatRun:
    from hfexport.backends.onnx.backend import OnnxBackend
    from hfexport.backends.onnx.variants.maker import OnnxVariants
    from hfexport.validation.validators import GraphValidator

    inputs = setup.inputs
    backend = OnnxBackend(
        inputs.opset,
        inputs.external_data,
        inputs.fixed or {},
        inputs.target or (),
        templates=templates_for(inputs, setup.staging),
        note=setup.observer.note,
        on_origins=setup.on_origins,
    )
    return FormatRun(backend, GraphValidator, OnnxVariants(inputs.opset, inputs.external_data, inputs.target or ()))


def _torchscript(setup: Setup) -> FormatRun:
    from hfexport.backends.torchscript.backend import TorchScriptBackend
    from hfexport.backends.torchscript.variants.maker import TorchScriptVariants
    from hfexport.validation.validators import GraphValidator

    templates = templates_for(setup.inputs, setup.staging)
    backend = TorchScriptBackend(templates, setup.observer.note, setup.on_origins)
    return FormatRun(backend, GraphValidator, TorchScriptVariants())


def _neuron(setup: Setup) -> FormatRun:
    """Find the SDK's interpreter and check, before any work, that it has what the target needs."""
    from hfexport.backends.neuron.backend import NeuronBackend
    from hfexport.backends.neuron.environment import check_environment
    from hfexport.backends.neuron.options import NeuronRun
    from hfexport.backends.neuron.sizes import Sizes
    from hfexport.validation.validators import NeuronValidator

    inputs, folder = setup.inputs, setup.staging / "neuron"
    try:
        with setup.stages("Neuron environment"):
            options = _neuron_options(inputs)
            folder.mkdir(parents=True)
            run = NeuronRun(options, folder.resolve(), setup.env, setup.observer.child_output)
            versions = check_environment(run)
    except NeuronError as error:
        if not setup.verifying:
            raise
        raise UnsupportedError(
            f"neuron: its files have the right hashes, but running it takes the Neuron SDK: {error.message}",
            remedy="Verify it where it is served, with --neuron-python.",
        ) from error
    setup.observer.note(", ".join(f"{name} {version}" for name, version in versions.items()))
    sizes = Sizes(
        batch=inputs.batch_size,
        sequence=inputs.sequence_length,
        decoder_length=inputs.neuron_decoder_length,
        beams=inputs.neuron_beams,
        free_batch=inputs.neuron_dynamic_batch_size,
        one_graph=inputs.layout == "single",
    )
    backend = NeuronBackend(run, sizes, setup.observer.warn)
    return FormatRun(backend, partial(NeuronValidator, backend=backend, min_compiled=inputs.neuron_min_compiled))


def _neuron_options(inputs: Inputs) -> NeuronOptions:
    from hfexport.backends.neuron.environment import find_python
    from hfexport.backends.neuron.options import NeuronOptions, Target, separate_weights_bytes

    target: Target = "inf2" if inputs.neuron_target == "inf2" else "inf1"
    return NeuronOptions(
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


MAKERS: Final[Mapping[str, Callable[[Setup], FormatRun]]] = MappingProxyType(
    {"onnx": _onnx, "torchscript": _torchscript, "neuron": _neuron}
)
"""Function that makes the back end of each format in `hfexport.backends.formats`."""
