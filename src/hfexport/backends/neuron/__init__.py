"""The Neuron back end: a checkpoint compiled for Inf1 or Inf2 by AWS's SDK, in the SDK's own interpreter.

Today's torch and the SDK cannot share an interpreter. `worker` runs in the SDK's; `protocol` is this side of the files
that the two exchange, and checks all that comes back.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hfexport.backends.base import ExportJob
from hfexport.backends.neuron.artifact import NeuronArtifact, NeuronPart, count_subgraphs
from hfexport.backends.neuron.compile_log import CompileLog, read_log
from hfexport.backends.neuron.options import COMPILERS, NeuronOptions, NeuronRun
from hfexport.backends.neuron.protocol import START_S, Answer, ask, expect
from hfexport.errors import NeuronError, UnsupportedError
from hfexport.export_config import ExportConfig, axis_size
from hfexport.probes import make_inputs
from hfexport.runtime import Description
from hfexport.workers import available_cores

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NeuronBackend", "refuse_untraceable"]

DTYPE: Final = "fp32"
"""The SDK's torch computes in it on CPU; the compiler casts to what the device computes in."""

_UNTRACEABLE: Final = {
    "deberta": "its softmax is a Python function of its own (XSoftmax) that torch 1.13 cannot save in a trace",
    "deberta-v2": "its softmax is a Python function of its own (XSoftmax) that torch 1.13 cannot save in a trace",
}
"""Model types that transformers 4 on the Inf1 SDK's torch cannot trace, with the reason."""


def refuse_untraceable(config: ExportConfig, options: NeuronOptions) -> None:
    """Refuse up front what is known not to work on the SDK's stack.

    Raises:
        UnsupportedError: with the reason and what to use instead.
    """
    model_type = str(config.config.model_type)
    if options.target == "inf1" and model_type in _UNTRACEABLE:
        raise UnsupportedError(
            f"Neuron: {model_type} cannot be compiled for Inf1: {_UNTRACEABLE[model_type]}",
            remedy="Export it to ONNX or TorchScript, or fine-tune an encoder that Inf1 runs: bert, roberta, electra, albert.",
        )


class NeuronBackend:
    """Makes `model.neuron`, which loads with `torch.jit.load` where the SDK is imported, and its config.json."""

    format = "neuron"

    def export(self, job: ExportJob) -> NeuronArtifact:
        run = job.neuron
        assert run is not None, "the pipeline gives a run with format neuron"
        refuse_untraceable(job.config, run.options)
        folder = run.folder / "export"
        folder.mkdir(parents=True)
        configs = {"model": job.config}
        _write_inputs(folder, configs, job, run)
        description = Description.of(job.config, DTYPE, fixed_sizes=job.fixed_sizes, metadata=job.metadata)
        request = {
            "action": "export",
            "checkpoint": str(job.checkpoint.resolve()),
            "loader": {
                "auto_class": job.config.task.auto_class,
                "bare": job.config.task.name.startswith("default"),
                "model_kwargs": dict(job.config.model_kwargs),
            },
            "threads": available_cores(run.env),
            "probes": len(run.probes),
            "compile": _compile_settings(run.options),
            "parts": [
                {
                    "name": name,
                    "inputs": [spec.name for spec in config.inputs],
                    "outputs": [spec.name for spec in config.outputs],
                    "description": description.to_dict(),
                }
                for name, config in configs.items()
            ],
        }
        limit_s = START_S + len(configs) * run.options.timeout_s
        answer = ask(run, request, folder, timeout_s=limit_s)
        return _install(answer, configs, job, run)


def _write_inputs(folder: Path, configs: Mapping[str, ExportConfig], job: ExportJob, run: NeuronRun) -> None:
    """What the parts are traced with and asked, for the worker: inputs.npz."""
    import numpy as np

    arrays: dict[str, NDArray[Any]] = {}
    for name, config in configs.items():
        example = make_inputs(config, job.fixed_sizes, DTYPE, padding="right", seed=7)
        arrays |= {f"{name}/trace/{key}": array for key, array in example.items()}
        for number, probe in enumerate(run.probes):
            arrays |= {f"{name}/{number}/{key}": array for key, array in probe.inputs(config, DTYPE).items()}
    np.savez(folder / "inputs.npz", **arrays)  # type: ignore[arg-type]


def _compile_settings(options: NeuronOptions) -> dict[str, Any]:
    return {
        "compiler_args": list(options.compiler_args),
        "timeout_s": options.timeout_s,
        "dynamic_batch_size": options.dynamic_batch_size,
        "minimum_segment_size": options.minimum_segment_size,
        "fallback": options.fallback,
        "optimizations": list(options.optimizations),
    }


def _install(answer: Answer, configs: Mapping[str, ExportConfig], job: ExportJob, run: NeuronRun) -> NeuronArtifact:
    """Move what the worker made into the artifact's folder, and describe it there."""
    who = "Neuron worker (export)"
    parts = expect(answer.values, "parts", list, who)
    if len(parts) != len(configs):
        raise NeuronError(f"{who}: it made {len(parts)} parts, not {len(configs)}", remedy="Please report it.")
    with answer.log.open(encoding="utf-8", errors="replace") as lines:
        logs = read_log(lines)
    made = tuple(
        _part(entry, config, answer, job.folder, logs.get(name, CompileLog()))
        for entry, (name, config) in zip(parts, configs.items(), strict=True)
    )
    log = job.folder / "compile.log"
    shutil.copyfile(answer.log, log)
    versions = {str(name): str(text) for name, text in expect(answer.values, "versions", dict, who).items()}
    config_path = _write_config(job, run.options, made, versions.get(COMPILERS[run.options.target], "unknown"))
    return NeuronArtifact(
        format="neuron",
        path=made[0].path,
        files=(*(part.path for part in made), config_path, log),
        fixed_sizes=job.fixed_sizes,
        details={
            "target": run.options.target,
            "compiler": COMPILERS[run.options.target],
            **_compile_settings(run.options),
            "versions": versions,
            "parts": [part.to_dict() for part in made],
        },
        config=job.config,
        dtype=DTYPE,
        parts=made,
        run=run,
        reference=answer.files["reference.npz"],
    )


def _part(entry: Any, config: ExportConfig, answer: Answer, folder: Path, log: CompileLog) -> NeuronPart:
    """One part from what the worker says of it, its file moved to `folder`."""
    who = "Neuron worker (export)"
    name = expect(entry, "name", str, who)
    made = answer.files.get(expect(entry, "artifact", str, who))
    trace = answer.files.get(expect(entry, "trace", str, who))
    if made is None or trace is None:
        raise NeuronError(f"{who}: it did not write the files of {name}", remedy="Please report it with config.json.")
    path = folder / made.name
    os.replace(made, path)
    try:
        archived = count_subgraphs(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise NeuronError(f"{path.name} is no TorchScript file: {error}", remedy="Please report it.") from error
    return NeuronPart(
        name=name,
        config=config,
        path=path,
        trace=trace,
        subgraphs=expect(entry, "subgraphs", int, who),
        archived_subgraphs=archived,
        operators=expect(entry, "operators", dict, who),
        cpu_operators=expect(entry, "cpu_operators", dict, who),
        log=log,
        separate_weights=expect(entry, "separate_weights", bool, who),
    )


def _write_config(job: ExportJob, options: NeuronOptions, parts: tuple[NeuronPart, ...], compiler_version: str) -> Path:
    """The model's config with a section `neuron`, in the form of optimum-neuron 0.4."""
    content = json.loads((job.checkpoint / "config.json").read_text(encoding="utf-8"))
    content["neuron"] = {
        "compiler_type": COMPILERS[options.target],
        "compiler_version": compiler_version,
        "inline_weights_to_neff": not any(part.separate_weights for part in parts),
        **_static_axes(job),
        "dynamic_batch_size": options.dynamic_batch_size,
        "tensor_parallel_size": 1,
        "auto_cast": None,
        "auto_cast_type": "bf16",
        "disable_fallback": not options.fallback,
        "disable_fast_relayout": False,
        "optlevel": "2",
        "compiler_args": list(options.compiler_args),
        "input_names": [spec.name for spec in job.config.inputs],
        "output_names": [spec.name for spec in job.config.outputs],
        "int_dtype": "int64",
        "float_dtype": "fp32",
        "model_type": job.config.config.model_type,
        "output_attentions": False,
        "output_hidden_states": False,
        "task": _OPTIMUM_TASKS.get(job.config.task.name, job.config.task.name),
    }
    path = job.folder / "config.json"
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


_OPTIMUM_TASKS: Final = {
    "default": "feature-extraction",
    "masked-lm": "fill-mask",
    "causal-lm": "text-generation",
    "sequence-classification": "text-classification",
    "seq2seq-lm": "text2text-generation",
}
"""Names of tasks in Optimum, where they differ from the feature names of `transformers.onnx`."""


def _static_axes(job: ExportJob) -> dict[str, int]:
    """Fixed sizes by the names that optimum-neuron gives the axes."""
    names = {"batch": "static_batch_size", "sequence": "static_sequence_length", "choice": "static_num_choices"}
    sizes = {names.get(axis, f"static_{axis}"): size for axis, size in job.fixed_sizes.items()}
    for spec in job.config.inputs:
        if spec.role == "pixel_values":
            channels, height, _ = (axis_size(axis, job.fixed_sizes) for axis in spec.axes[1:])
            sizes |= {"static_num_channels": channels, "static_image_size": height}
    return sizes
