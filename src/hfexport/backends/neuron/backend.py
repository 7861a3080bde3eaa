"""Neuron back end: ask the SDK's interpreter to compile a checkpoint, and put the artifact together from its answer."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from msgspec import UNSET

from hfexport import runtime
from hfexport._internal.messages import plain
from hfexport._internal.workers import available_cores
from hfexport.backends.base import ExportJob
from hfexport.backends.neuron.artifact import NeuronArtifact, NeuronPart, count_subgraphs
from hfexport.backends.neuron.compile_log import CompileLog, read_log
from hfexport.backends.neuron.messages import (
    Compile,
    CompiledPart,
    ExportAnswer,
    ExportRequest,
    Loader,
    PartRequest,
)
from hfexport.backends.neuron.optimum_config import write_config
from hfexport.backends.neuron.options import COMPILERS, NeuronOptions, NeuronRun, Target
from hfexport.backends.neuron.plan import DTYPE, PartPlan
from hfexport.backends.neuron.protocol import START_S, Answer, ask
from hfexport.backends.neuron.sizes import Sizes, plan_parts, without_cache
from hfexport.errors import NeuronError, UnsupportedError, ValidationError
from hfexport.export_config import DeclaredConfig, ExportConfig, Layout
from hfexport.export_config.arrays import Arrays

__all__ = ["NeuronBackend", "refuse_untraceable", "reopen"]

RUNTIME_PACKAGE: Final = "hfexport_neuron"

_UNTRACEABLE: Final = {
    "deberta": "its softmax in transformers 4 is a Python function (XSoftmax) that torch cannot save in a trace",
    "deberta-v2": "its softmax in transformers 4 is a Python function (XSoftmax) that torch cannot save in a trace",
}
"""Model types that cannot be traced with the transformers that the SDKs take, with the reason."""


_CRASHING: Final = ("yolos", "wav2vec2", "convbert")
"""Model types whose tracing crashes in the SDK for Inf2 at torch 2.9, by its release notes."""


def refuse_untraceable(config: ExportConfig, target: Target) -> None:
    """Refuse model types that are known to fail with the SDK's transformers or its torch, before any work.

    Raises:
        UnsupportedError: the model type cannot be compiled; the message gives the reason and an alternative.
    """
    model_type = str(config.config.model_type)
    reason = _UNTRACEABLE.get(model_type)
    if target == "inf2" and model_type in _CRASHING:
        reason = f"tracing {model_type} crashes in the Neuron SDK 2.33 with torch 2.9, a known issue of the SDK"
    if reason is not None:
        raise UnsupportedError(
            f"Neuron: {model_type} cannot be compiled: {reason}",
            remedy="Export it to ONNX or TorchScript, or fine-tune an encoder that Neuron runs: bert, roberta, electra, albert.",
        )


@dataclass(frozen=True)
class NeuronBackend:
    """Compile `model.neuron`, which `torch.jit.load` loads where the SDK is imported, and write its config.json.

    Attributes:
        run: compile options and the SDK's interpreter.
        sizes: requested sizes.
        warn: called with warnings about sizes that the model does not support.
    """

    run: NeuronRun
    sizes: Sizes
    warn: Callable[[str], None]
    format: ClassVar[str] = "neuron"
    can_fix_sizes: ClassVar[bool] = False

    def graphs(self, family: ExportConfig, layout: Layout | None) -> tuple[ExportConfig, ...]:
        """Return the model without its cache as the only graph; `plan_parts` divides it into parts."""
        del layout
        return (without_cache(family),)

    def export(self, job: ExportJob) -> NeuronArtifact:
        """Compile each part at its sizes in the SDK's interpreter."""
        run = self.run
        refuse_untraceable(job.config, self.run.options.target)
        parts = plan_parts(job.config, job.checkpoint, self.sizes, self.warn)
        folder = run.folder / "export"
        folder.mkdir(parents=True)
        _write_inputs(folder, parts)
        request = ExportRequest(
            checkpoint=str(job.checkpoint.resolve()),
            loader=_loader(job.config),
            threads=available_cores(run.env),
            compile=_compile_settings(run.options),
            parts=tuple(_part_request(part, job) for part in parts),
        )
        limit_s = START_S + len(parts) * run.options.timeout_s
        return _install(ask(run, request, ExportAnswer, folder, timeout_s=limit_s), job, run, parts)


def _loader(config: ExportConfig) -> Loader:
    """Describe to the worker how to load the checkpoint: class, arguments and sentence-transformers modules."""
    # A user's own class may change config values for the model; `from_pretrained` takes them as arguments.
    changed = config.interface.config_values if isinstance(config, DeclaredConfig) else {}
    sentence = None
    if config.sentence is not None:
        sentence = {
            "code": str(Path(runtime.__file__).parents[1] / "modeling" / "pooling.py"),
            **config.sentence.to_dict(),
        }
    return Loader(
        auto_class=config.auto_class,
        bare=config.task.name.startswith(("default", "sentence"))
        and all(spec.name != "pooler_output" for spec in config.outputs),
        model_kwargs={**config.model_kwargs, **changed},
        sentence=sentence,
    )


def _write_inputs(folder: Path, parts: Sequence[PartPlan]) -> None:
    """Write inputs.npz for the worker: the example inputs for tracing and the inputs of all probes."""
    import numpy as np

    arrays: Arrays = {}
    for part in parts:
        arrays |= {f"{part.name}/trace/{name}": array for name, array in part.example().items()}
        for number, probe in enumerate(part.probes):
            inputs = probe.inputs(part.config, DTYPE)
            arrays |= {f"{part.name}/{number}/{name}": array for name, array in inputs.items()}
    # numpy types keywords as its option `allow_pickle`; names with a slash cannot be one.
    np.savez(folder / "inputs.npz", **arrays)  # type: ignore[arg-type]


def _part_request(part: PartPlan, job: ExportJob) -> PartRequest:
    return PartRequest(
        name=part.name,
        inputs=tuple(spec.name for spec in part.config.inputs),
        outputs=tuple(spec.name for spec in part.config.outputs),
        probes=len(part.probes),
        description=part.description(job.metadata).to_dict(),
    )


def _compile_settings(options: NeuronOptions) -> Compile:
    """Return the compiler settings for the worker's job."""
    inf1 = options.target == "inf1"
    return Compile(
        compiler_args=tuple(options.compiler_args),
        timeout_s=options.timeout_s,
        dynamic_batch_size=options.dynamic_batch_size,
        separate_weights_bytes=options.separate_weights_bytes,
        minimum_segment_size=options.minimum_segment_size if inf1 else UNSET,
        fallback=options.fallback if inf1 else UNSET,
        optimizations=tuple(options.optimizations) if inf1 else UNSET,
    )


def _install(answer: Answer[ExportAnswer], job: ExportJob, run: NeuronRun, parts: Sequence[PartPlan]) -> NeuronArtifact:
    """Move the worker's files into the artifact's folder; add config.json, the compiler's log and the runtime."""
    who = "Neuron worker (export)"
    entries = answer.values.parts
    if len(entries) != len(parts):
        raise NeuronError(f"{who}: it made {len(entries)} parts, not {len(parts)}", remedy="Please report it.")
    with answer.log.open(encoding="utf-8", errors="replace") as lines:
        logs = read_log(lines)
    made = tuple(
        _part(entry, plan, answer, _place(plan, parts, job.folder), logs.get(plan.name, CompileLog()))
        for entry, plan in zip(entries, parts, strict=True)
    )
    log = _copy_log(answer.log, job.folder / "compile.log")
    versions = answer.values.versions
    config = write_config(job, run.options, made, versions.get(COMPILERS[run.options.target], "unknown"))
    return NeuronArtifact(
        format="neuron",
        path=made[0].path if len(made) == 1 else config,
        files=(
            *(part.path for part in made),
            config,
            *_copy_generation_config(job, parts),
            *_copy_runtime(job.folder),
            log,
        ),
        fixed_sizes=made[-1].plan.held,
        details={
            "target": run.options.target,
            "compiler": COMPILERS[run.options.target],
            **plain(_compile_settings(run.options)),
            "network": answer.values.network,
            "versions": versions,
            "parts": [part.to_dict() for part in made],
        },
        config=made[0].plan.config,
        dtype=DTYPE,
        parts=made,
        run=run,
        package=job.folder / RUNTIME_PACKAGE,
        reference=answer.files["reference.npz"],
    )


def _copy_log(source: Path, target: Path) -> Path:
    """Copy the compiler's log without the path of its temporary folder, which differs in every run."""
    folder = os.fsencode(source.parent) + os.sep.encode()
    with source.open("rb") as lines, target.open("wb") as kept:
        for line in lines:
            kept.write(line.replace(folder, b""))
    return target


def reopen(folder: Path, run: NeuronRun, plans: Sequence[PartPlan]) -> NeuronArtifact:
    """Open an existing artifact for validation, and write the probe inputs for the worker.

    Args:
        folder: folder of the artifact's files.
        run: how to run it.
        plans: parts that the artifact should have.

    Raises:
        ValidationError: the folder holds no such artifact.
    """
    exchange = run.folder / "export"
    exchange.mkdir(parents=True)
    _write_inputs(exchange, plans)
    parts = []
    for plan in plans:
        path = _place(plan, plans, folder)
        try:
            subgraphs = count_subgraphs(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise ValidationError(f"{path.name} of part {plan.name} is no TorchScript file: {error}") from error
        parts.append(NeuronPart(plan, path, Path(), subgraphs, subgraphs, {}, {}, CompileLog()))
    files = tuple(path for path in folder.rglob("*") if path.is_file())
    package = _copy_runtime(exchange)[0].parent  # use our own copy: the artifact's may hold untrusted code
    return NeuronArtifact("neuron", parts[0].path, files, parts=tuple(parts), run=run, package=package)


def _copy_runtime(folder: Path) -> tuple[Path, ...]:
    """Copy the package `hfexport_neuron`, which runs the artifact where hfexport cannot be installed."""
    package = folder / RUNTIME_PACKAGE
    package.mkdir()
    source = Path(runtime.__file__).parent
    shutil.copyfile(source / "neuron.py", package / "__init__.py")
    shutil.copyfile(source / "shapes.py", package / "shapes.py")
    return (package / "__init__.py", package / "shapes.py")


def _copy_generation_config(job: ExportJob, parts: Sequence[PartPlan]) -> tuple[Path, ...]:
    source = job.checkpoint / "generation_config.json"
    if not source.is_file() or len(parts) == 1:
        return ()
    shutil.copyfile(source, job.folder / source.name)
    return (job.folder / source.name,)


def _place(plan: PartPlan, parts: Sequence[PartPlan], folder: Path) -> Path:
    return folder / "model.neuron" if len(parts) == 1 else folder / plan.name / "model.neuron"


def _part(entry: CompiledPart, plan: PartPlan, answer: Answer[ExportAnswer], path: Path, log: CompileLog) -> NeuronPart:
    """Create a `NeuronPart` from the worker's answer, and move its file to `path`."""
    who = "Neuron worker (export)"
    made = answer.files.get(f"{plan.name}.neuron")
    trace = answer.files.get(f"{plan.name}.trace.pt")
    if made is None or trace is None or entry.name != plan.name:
        raise NeuronError(f"{who}: it did not write the files of {plan.name}", remedy="Please report it.")
    path.parent.mkdir(exist_ok=True)
    os.replace(made, path)
    try:
        archived = count_subgraphs(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise NeuronError(f"{made.name} is no TorchScript file: {error}", remedy="Please report it.") from error
    return NeuronPart(
        plan=plan,
        path=path,
        trace=trace,
        subgraphs=entry.subgraphs,
        archived_subgraphs=archived,
        operators=entry.operators,
        cpu_operators=entry.cpu_operators,
        log=log,
        separate_weights=entry.separate_weights,
    )
