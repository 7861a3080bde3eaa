"""The way of the data: inputs, checkpoint, task and export config, artifacts, validation, manifest.

`run` reads like the picture in docs/architecture.md. It decides nothing about the console or exit codes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfexport import __version__
from hfexport.architectures import known_architectures
from hfexport.checkpoint import (
    Checkpoint,
    Contents,
    Source,
    copy_along,
    identity,
    locate,
    look_over,
    read_checkpoint,
    sha256,
)
from hfexport.checkpoint.sentence import read_sentence_modules
from hfexport.credentials import publishing_token, reading_token
from hfexport.errors import (
    CheckpointError,
    HfexportError,
    InputsError,
    PublishError,
    UnsupportedError,
    ValidationError,
)
from hfexport.export_config import DecoderConfig, ExportConfig, TensorSpec
from hfexport.hub import Hub
from hfexport.output import install, output_lock, withdraw
from hfexport.tasks import SENTENCE_TASK, TASKS, Task, select_task

if TYPE_CHECKING:
    from hfexport.backends.base import Artifact
    from hfexport.backends.neuron.options import NeuronRun
    from hfexport.export_config import SentenceModules
    from hfexport.inputs import Inputs
    from hfexport.interface import OnnxConfig
    from hfexport.manifest import Manifest
    from hfexport.observer import Observer
    from hfexport.probes import Probe
    from hfexport.publish import Publisher
    from hfexport.validation import Reference
    from hfexport.validation.compare import ArtifactVerdict

    Graphs = tuple[ExportConfig, ...]
    """The graphs of one model, in the order in which generation runs them."""

    Result = tuple[Artifact, ExportConfig, ArtifactVerdict]

__all__ = ["Failed", "Run", "run"]


class Failed(Exception):
    """A run that ended early: the error for the user, and the manifest that records how far it came."""

    def __init__(self, error: HfexportError, manifest: Manifest) -> None:
        super().__init__(str(error))
        self.error = error
        self.manifest = manifest


def run(
    inputs: Inputs,
    observer: Observer,
    env: Mapping[str, str],
    *,
    further_probes: Callable[[ExportConfig], tuple[Probe, ...]] | None = None,
) -> Manifest:
    """Export what `inputs` asks for, prove it, and put it into the output folder.

    Args:
        inputs: checked inputs.
        observer: is told about progress.
        env: the environment; children see an allow-list of it.
        further_probes: gives what shape-free artifacts are asked besides hfexport's own probes.

    Returns:
        The manifest, which also lies in the output folder.

    Raises:
        Failed: with the error; the output folder then holds a manifest that says so, and no artifact of ours.
    """
    from hfexport.manifest import error_entry, new_manifest, provenance_entry, write_manifest

    output = Path(inputs.output)
    manifest = new_manifest(inputs, datetime.now(UTC).isoformat(timespec="seconds"))
    manifest["provenance"] = provenance_entry(env)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = InputsError([f"output {inputs.output!r} cannot be made: {error.strerror}"])
        manifest["error"] = error_entry(problem)
        raise Failed(problem, manifest) from error
    with output_lock(output), tempfile.TemporaryDirectory(prefix=".hfexport-", dir=output) as staging:
        work = Run(inputs, observer, env, Path(staging), manifest, further_probes)
        try:
            source, publisher = work.locate()
            if publisher is not None and (found := work.answered(source, publisher)):
                return found
            artifacts = work.export_and_validate(source)
        except HfexportError as error:
            manifest["verdict"] = "failed" if isinstance(error, ValidationError) else "error"
            manifest["error"] = error_entry(error)
            withdraw(output)
            write_manifest(manifest, output)
            raise Failed(error, manifest) from error
        except KeyboardInterrupt:
            interrupted = HfexportError("interrupted", remedy="Run it again.")
            manifest["error"] = error_entry(interrupted)
            withdraw(output)
            write_manifest(manifest, output)
            raise
        install(artifacts, output)
        write_manifest(manifest, output)
        if publisher is not None:
            work.publish(publisher, output)
    return manifest


@dataclass
class Run:
    """What the steps of one run share: where they work, and the manifest they fill in."""

    inputs: Inputs
    observer: Observer
    env: Mapping[str, str]
    staging: Path
    manifest: Manifest
    further_probes: Callable[[ExportConfig], tuple[Probe, ...]] | None
    references: list[Reference] = field(default_factory=list)
    source_identity: str = ""
    shared_references: tuple[Reference, ...] = ()
    neuron: NeuronRun | None = None

    @property
    def ready(self) -> Path:
        """The folder that becomes the output."""
        return self.staging / "ready"

    def locate(self) -> tuple[Source, Publisher | None]:
        """Find the checkpoint and, if it is to be published, the destination: what is wrong there is said at once."""
        from hfexport.publish import Destination, open_publisher

        inputs = self.inputs
        with self._stage("Source"):
            source = locate(inputs.model, inputs.revision, inputs.subfolder, self._hub)
            if inputs.push_to_hub is None:
                return source, None
            repository = inputs.model if inputs.push_to_hub == "true" else inputs.push_to_hub
            destination = Destination(
                repository, inputs.branch, inputs.create_pr, inputs.private, inputs.commit_message or "", inputs.dry_run
            )

            def hub() -> Hub:
                token = publishing_token(inputs.hub_token, self.env, repository, self.observer.mask)
                return Hub(token, note=self.observer.note, failure=PublishError)

            return source, open_publisher(hub, destination, source, self.observer.note)

    def answered(self, source: Source, publisher: Publisher) -> Manifest | None:
        """The manifest of an export that is published already and answers what is asked."""
        with self._stage("Published exports"):
            found = publisher.answered(self.manifest, describe_source(source))
        if found is not None:
            self.observer.note(
                f"nothing to do: {found['publication']['commit_url']} holds this export, and its files hold"
            )
        return found

    def publish(self, publisher: Publisher, output: Path) -> None:
        """Publish what lies in the output folder; it stays there whatever comes of it.

        Raises:
            Failed: nothing was published.
        """
        from hfexport.manifest import error_entry, write_manifest

        try:
            with self._stage("Publishing"):
                self.manifest["publication"] = publisher.publish(output, self.manifest)
        except HfexportError as error:
            self.manifest["error"] = error_entry(error)
            write_manifest(self.manifest, output)
            raise Failed(error, self.manifest) from error
        except KeyboardInterrupt:
            self.manifest["error"] = error_entry(HfexportError("interrupted", remedy="Run it again."))
            write_manifest(self.manifest, output)
            raise
        write_manifest(self.manifest, output)

    def export_and_validate(self, source: Source) -> Path:
        """The whole way; returns the folder that is ready to be put into place."""
        from hfexport.manifest import artifact_entry, files_entry, source_entry

        with self._stage("Checkpoint"):
            folder, digests = source.fetch(self._hub, self.observer.note, code=self.inputs.trust_remote_code)
            contents = look_over(folder)
            self.observer.note(f"{self.inputs.model}: {contents.weights.description}")
            self.source_identity = identity(source, folder)
            config_source = _look_up(contents, self.inputs)
        checkpoint = self._read(contents)
        dtype = _dtype(self.inputs.dtype, checkpoint, self.observer)
        if "neuron" in self.inputs.formats:
            self._prepare_neuron()
        self.ready.mkdir()
        with ThreadPoolExecutor(max_workers=1) as hashing:
            hashes = hashing.submit(lambda: {path: digests.get(path) or sha256(path) for path in contents.files})
            self.manifest["source"] = source_entry(checkpoint, source, {})
            with self._stage("Model configuration"):
                config = self._export_config(checkpoint, config_source, dtype)
                opset = _opset(self.inputs.opset, config)
            self.manifest |= {"task": config.task.name, "dtype": dtype, "interface": config.origin}
            try:
                results = [
                    result
                    for name in self.inputs.formats
                    for result in self._one_format(name, checkpoint, config, dtype, opset)
                ]
            finally:
                for reference in self.references:
                    reference.worker.stop()
        self.manifest["source"] = source_entry(checkpoint, source, hashes.result())
        with self._stage("Files"):
            self.manifest["artifacts"] = [
                artifact_entry(artifact, artifact.config or config, artifact.dtype or dtype, self.ready, verdict)
                for artifact, config, verdict in results
            ]
            self.manifest["files"] = files_entry(copy_along(checkpoint, self.ready), self.ready)
        self._decide(results)
        return self.ready

    def _read(self, contents: Contents) -> Checkpoint:
        """The folder's safetensors, or its weights converted to that."""
        if contents.weights.format == "safetensors":
            with self._stage("Weights"):
                return read_checkpoint(contents)
        from hfexport.conversion import convert

        with self._stage("Conversion of weights"):
            checkpoint = convert(contents, self.staging / "converted", self.env)
        if checkpoint.conversion is not None and checkpoint.conversion.left_out:
            names = ", ".join(checkpoint.conversion.left_out)
            self.observer.note(f"Weights that the PyTorch model has no use for were left out: {names}")
        return checkpoint

    def _hub(self) -> Hub:
        token = reading_token(self.inputs.hub_token, self.env, self.observer.mask)
        return Hub(token, note=self.observer.note)

    def _export_config(self, checkpoint: Checkpoint, source: _ConfigSource, dtype: str) -> ExportConfig:
        model_config = _model_config(checkpoint, self.inputs)
        trust = self.inputs.trust_remote_code
        if source.known is not None and source.task is not None:
            try:
                config = source.known(model_config, source.task, trust_remote_code=trust, sentence=source.sentence)
                return _refuse_without_mask(config)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise _unreadable(checkpoint, error) from error
        from hfexport.interface.finder import find_export_config

        found = find_export_config(
            checkpoint,
            model_config,
            source.requested,
            dtype,
            own=None if source.own is None else (str(self.inputs.export_config), source.own),
            trust_remote_code=trust,
            note=self.observer.note,
        )
        config = found if source.sentence is None else found.pooled(TASKS[SENTENCE_TASK], source.sentence)
        self.observer.note(f"Interface {config.origin}: takes {_names(config.inputs)}; gives {_names(config.outputs)}")
        return _refuse_without_mask(config)

    def _one_format(
        self, name: str, checkpoint: Checkpoint, family: ExportConfig, dtype: str, opset: int
    ) -> list[Result]:
        """Export every graph to one format, then validate each; the last of them generates through all."""
        from hfexport.validation import not_run

        if name == "neuron":
            return [self._neuron_format(checkpoint, family)]
        strict = self.inputs.validate == "strict"
        graphs = family.graphs(self.inputs.layout)
        if strict and not self.shared_references:
            self.shared_references = self._start_references(checkpoint, graphs, dtype, {})
        (self.ready / name).mkdir()
        with self._stage(f"Export to {name}"):
            artifacts = [self._export(name, checkpoint, config, dtype, opset, {}) for config in graphs]
        if not strict:
            reason = "validate is off"
            return [(artifact, config, not_run(reason)) for artifact, config in zip(artifacts, graphs, strict=True)]
        results: list[Result] = []
        for artifact, config, reference in zip(artifacts, graphs, self.shared_references, strict=True):
            made = [(earlier, described) for earlier, described, _ in results]
            verdict = self._validate(artifact, config, dtype, reference, made)
            result = (artifact, config, verdict)
            if verdict.verdict != "passed" and name == "torchscript" and _only_shapes_fail(verdict, config):
                result = self._at_fixed_sizes(result, checkpoint, dtype, opset)
            results.append(result)
        return results

    def _at_fixed_sizes(self, result: Result, checkpoint: Checkpoint, dtype: str, opset: int) -> Result:
        """A trace that holds only at its own sizes, made again at fixed ones."""
        artifact, config, _ = result
        sizes = _fixed_sizes(config, self.inputs)
        self.observer.warn(
            f"TorchScript: the trace of {artifact.path.name} holds only at the sizes it was made with; made again at "
            + ", ".join(f"{axis} {size}" for axis, size in sizes.items())
        )
        for file in artifact.files:
            file.unlink()
        (reference,) = self._start_references(checkpoint, (config,), dtype, sizes)
        with self._stage(f"Export to {artifact.format}"):
            artifact = self._export(artifact.format, checkpoint, config, dtype, opset, sizes)
        return artifact, config, self._validate(artifact, config, dtype, reference, [])

    def _prepare_neuron(self) -> None:
        from hfexport.neuron import prepare

        with self._stage("Neuron environment"):
            self.neuron, versions = prepare(self.inputs, self.staging / "neuron", self.env, self.observer.child_output)
            self.observer.note(", ".join(f"{name} {version}" for name, version in versions.items()))

    def _neuron_format(self, checkpoint: Checkpoint, config: ExportConfig) -> Result:
        """Compile at fixed sizes; the reference has questions of its own, at those sizes."""
        from hfexport.neuron import NeuronExport, plan, static_config
        from hfexport.validation import not_run

        assert self.neuron is not None, "prepared before any export"
        config = static_config(config)
        parts = plan(config, checkpoint.folder, self.inputs, self.observer.warn)
        work = NeuronExport(
            self.neuron, self.inputs, checkpoint.folder, config, parts, self.neuron.folder, self.source_identity
        )
        strict = self.inputs.validate == "strict"
        if strict:
            reference = work.start_reference()
            self.references.extend(reference.parts.values())
        with self._stage("Export to neuron"):
            (self.ready / "neuron").mkdir()
            artifact = work.export(self.ready / "neuron")
        if not strict:
            return artifact, config, not_run("validate is off")
        with self._stage("Validation of neuron"):
            verdict = work.validate(artifact, reference)
        for check in verdict.checks:
            if check.verdict == "not_run":
                self.observer.warn(f"neuron: {check.name}: not run: {check.reason}")
        return artifact, config, verdict

    def _start_references(
        self, checkpoint: Checkpoint, graphs: Graphs, dtype: str, fixed_sizes: Mapping[str, int]
    ) -> tuple[Reference, ...]:
        from hfexport.probes import fixed_probes, validation_probes
        from hfexport.validation import start_references

        def probes(config: ExportConfig) -> tuple[Probe, ...]:
            if fixed_sizes:
                return fixed_probes(config, fixed_sizes)
            further = self.further_probes(config) if self.further_probes is not None else ()
            return (*further, *validation_probes(config))

        asked = [(config, probes(config)) for config in graphs]
        folder = self.staging / f"reference-{len(self.references)}"
        references = start_references(checkpoint.folder, asked, dtype, folder=folder, env=self.env)
        self.references.extend(references)
        return references

    def _export(
        self,
        name: str,
        checkpoint: Checkpoint,
        config: ExportConfig,
        dtype: str,
        opset: int,
        fixed_sizes: Mapping[str, int],
    ) -> Artifact:
        from hfexport.backends import backend_for
        from hfexport.backends.base import ExportJob

        metadata = {
            "producer": "hfexport",
            "version": __version__,
            "source": self.source_identity,
            "task": config.task.name,
        }
        folder, external = self.ready / name, self.inputs.external_data
        job = ExportJob(checkpoint.folder, config, dtype, folder, metadata, opset, external, fixed_sizes)
        return backend_for(name).export(job)

    def _validate(
        self,
        artifact: Artifact,
        config: ExportConfig,
        dtype: str,
        reference: Reference,
        companions: list[tuple[Artifact, ExportConfig]],
    ) -> ArtifactVerdict:
        from hfexport.validation import resolve_tolerance, validate

        with self._stage(f"Validation of {artifact.format}/{artifact.path.name}"):
            tolerance = resolve_tolerance(config, dtype, self.inputs.atol, self.inputs.rtol)
            folder = Path(tempfile.mkdtemp(prefix=f"run-{artifact.format}-", dir=self.staging))
            return validate(artifact, config, reference, tolerance, folder=folder, env=self.env, companions=companions)

    def revalidate(
        self, source: Path, folder: Path, name: str, entries: Sequence[Mapping[str, Any]]
    ) -> list[ArtifactVerdict]:
        """Validate the artifacts of one format that were made before.

        Args:
            source: folder of the checkpoint that they were made from.
            folder: that their paths start at.
            name: of the format.
            entries: the artifacts, as a manifest has them, in its order.

        Raises:
            ValidationError: there are other artifacts than this model has graphs.
        """
        from hfexport.backends.base import Artifact

        contents = look_over(source)
        checkpoint = self._read(contents)
        family = self._export_config(checkpoint, _look_up(contents, self.inputs), self.inputs.dtype)
        graphs = family.graphs(self.inputs.layout)
        if len(graphs) != len(entries):
            raise ValidationError(f"{name}: has {len(entries)} artifacts, but the model has {len(graphs)} graphs")
        dtype, results = self.inputs.dtype, []
        made: list[tuple[Artifact, ExportConfig]] = []
        for config, entry in zip(graphs, entries, strict=True):
            sizes = dict(entry["fixed_sizes"] or {})
            files = tuple(folder / file["path"] for file in entry["files"])
            artifact = Artifact(name, folder / entry["path"], files, sizes, entry["details"])
            (reference,) = self._start_references(checkpoint, (config,), dtype, sizes)
            results.append(self._validate(artifact, config, dtype, reference, [] if sizes else made))
            made.append((artifact, config))
        return results

    def _decide(self, results: list[Result]) -> None:
        """Set the manifest's verdict, or raise what is wrong."""
        failures = [
            f"{artifact.format}/{artifact.path.name}: {line}"
            for artifact, _, verdict in results
            if verdict.verdict == "failed"
            for line in (verdict.failures or ("no probe was answered",))
        ]
        if failures:
            more = f"\nand {len(failures) - 5} more, in the manifest" if len(failures) > 5 else ""
            raise ValidationError(
                "\n".join(failures[:5]) + more,
                remedy="The artifact is wrong or the tolerance too tight; nothing was left in the output folder.",
            )
        found = {verdict.verdict for _, _, verdict in results}
        self.manifest["verdict"] = (
            "passed" if found == {"passed"} else "not_validated" if "not_run" in found else "incomplete"
        )

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """Tell the observer, and record seconds and peak memory of this process."""
        from hfexport.manifest import Stage

        start = time.perf_counter()
        _reset_peak_memory()
        try:
            with self.observer.stage(name):
                yield
        finally:
            stage = Stage(name, round(time.perf_counter() - start, 3), _peak_memory_bytes())
            self.manifest["stages"].append(asdict(stage))


def _names(specs: Sequence[TensorSpec]) -> str:
    """Names for the user; a cache is one of them."""
    kinds = dict.fromkeys(spec.name.partition(".")[0] for spec in specs)
    return ", ".join(kinds)


@dataclass(frozen=True)
class _ConfigSource:
    """Where the export config will come from: a class of `architectures`, a user's own, or (neither) the model itself."""

    requested: str
    known: type[ExportConfig] | None = None
    task: Task | None = None
    own: type[OnnxConfig] | None = None
    sentence: SentenceModules | None = None


def _look_up(contents: Contents, inputs: Inputs) -> _ConfigSource:
    """All that can be told, or refused, before torch is imported."""
    sentence = read_sentence_modules(contents.folder) if inputs.task == SENTENCE_TASK else None
    requested = "default" if sentence is not None else inputs.task
    if inputs.export_config is not None:
        from hfexport.interface import load_class

        return _ConfigSource(requested, own=load_class(inputs.export_config), sentence=sentence)
    known = known_architectures().get(contents.model_type)
    if known is None:
        return _ConfigSource(requested, sentence=sentence)
    task = select_task(
        requested,
        model_type=contents.model_type,
        architectures=contents.architectures,
        supported=known.tasks,
    )
    _opset(inputs.opset, known)
    return _ConfigSource(requested, known, TASKS[SENTENCE_TASK] if sentence is not None else task, sentence=sentence)


def _refuse_without_mask(config: ExportConfig) -> ExportConfig:
    if config.sentence is not None and not any(spec.name == "attention_mask" for spec in config.inputs):
        raise UnsupportedError(
            f"model_type {config.config.model_type!r} takes no attention mask, without which nothing can be pooled",
            remedy="Export task default, and pool outside.",
        )
    return config


def _opset(requested: int | None, config: ExportConfig | type[ExportConfig]) -> int:
    low, high = config.opsets
    if requested is not None and not low <= requested <= high:
        raise InputsError([f"opset {requested} is out of range: {low} to {high} are proved for this architecture"])
    return requested or config.default_opset


def _dtype(requested: str, checkpoint: Checkpoint, observer: Observer) -> str:
    if requested != "auto":
        return requested
    if checkpoint.dtype == "bf16":
        observer.note("The checkpoint is bfloat16, which ONNX Runtime does not run on CPU; exported as fp32, exactly.")
    return "fp16" if checkpoint.dtype == "fp16" else "fp32"


def _model_config(checkpoint: Checkpoint, inputs: Inputs) -> Any:
    """The model's `PreTrainedConfig`; code that the checkpoint carries is run only if the user said so."""
    from transformers import CONFIG_MAPPING, AutoConfig

    remote = "AutoConfig" in (checkpoint.config.get("auto_map") or {})
    if checkpoint.model_type not in CONFIG_MAPPING and not (remote and inputs.trust_remote_code):
        remedy = "Use a checkpoint of an architecture that this version of transformers has."
        if remote:
            remedy = "Its code comes with the checkpoint: read it, and run it with --trust-remote-code."
        raise UnsupportedError(
            f"model_type {checkpoint.model_type!r} in config.json is not an architecture of transformers", remedy=remedy
        )
    try:
        return AutoConfig.from_pretrained(
            checkpoint.folder, local_files_only=True, trust_remote_code=inputs.trust_remote_code
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _unreadable(checkpoint, error) from error


def _unreadable(checkpoint: Checkpoint, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{checkpoint.contents.folder / 'config.json'}: transformers cannot read it: {str(error).splitlines()[0]}",
        remedy="Use the config.json that was saved with the model.",
    )


def _fixed_sizes(config: ExportConfig, inputs: Inputs) -> dict[str, int]:
    """Sizes of every free axis for a static trace, within what the model can take."""
    sizes: dict[str, int] = {}
    asked = {"batch": inputs.batch_size, "sequence": inputs.sequence_length}
    for axis in config.free_axes:
        limit = config.limits.get(axis)
        size = asked.get(axis, config.trace_sizes[axis])
        sizes[axis] = min(size, limit.maximum) if limit is not None and limit.maximum is not None else size
    if isinstance(config, DecoderConfig) and config.max_positions and "past_sequence" in sizes:
        sizes["sequence"] = min(sizes["sequence"], config.max_positions - sizes["past_sequence"])
    return sizes


def _only_shapes_fail(verdict: ArtifactVerdict, config: ExportConfig) -> bool:
    """Whether a fixed shape could cure it: some probes pass or are refused by shape, rather than all being off."""
    if not config.free_axes or not verdict.probes:
        return False
    return any(result.passed for result in verdict.probes) or any(result.problem for result in verdict.probes)


def describe_source(source: Source) -> dict[str, Any]:
    """What tells one source from another: the commit on the Hub, or of a folder the SHA-256 of every file that counts."""
    if source.model is not None:
        return {"hub": source.model.to_dict()}
    contents = look_over(source.folder)
    return {
        "hub": None,
        "files": {path.name: sha256(path) for path in contents.files},
        "along": {path.name: sha256(path) for path in contents.along},
    }


def _reset_peak_memory() -> None:
    """Start the kernel's high-water mark of this process anew (Linux; elsewhere the mark only grows)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def _peak_memory_bytes() -> int:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0)
