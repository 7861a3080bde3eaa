"""Pipeline: inputs, checkpoint, task and export config, artifacts, validation, manifest.

`run` follows the diagram in docs/architecture.md. It does not handle the console or exit codes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from hfexport._internal.standby import Standbys
from hfexport.checkpoint import Checkpoint, Contents, look_over, read_checkpoint, sha256
from hfexport.checkpoint.adapter import Adapter, base_of, find_adapter
from hfexport.checkpoint.left_behind import left_in_folder
from hfexport.checkpoint.quantized import quantization_method, refuse_plain_weights
from hfexport.errors import InputsError, PublishError
from hfexport.export_config import ExportConfig
from hfexport.hub.client import Hub
from hfexport.hub.credentials import publishing_token, reading_token
from hfexport.hub.source import Fetched, Source, SourceIdentity, describe_source, identity, locate
from hfexport.modeling.conversion.variant import link_variant
from hfexport.modeling.unused import find_unused
from hfexport.modeling.wrapped_names import unwrapped_names
from hfexport.run import isolated
from hfexport.run.boundary import Boundary, Failed
from hfexport.run.exporter import Exporter, WeightFolders
from hfexport.run.finishing import Made, finish
from hfexport.run.formats import Setup, open_format
from hfexport.run.graph_cache import keep_templates
from hfexport.run.hashing import Hashing
from hfexport.run.output_folder import install, lists_same_files, output_lock, staging_folder, sweep, withdraw
from hfexport.run.ownership import give_to_owner
from hfexport.run.positions import within_positions
from hfexport.run.preflight import refuse_large_conversion
from hfexport.run.selection import ConfigSource, find_config, look_up, resolve_dtype, resolve_opset
from hfexport.run.stages import Stages
from hfexport.run.variants import make_variants
from hfexport.run.warm import keep_shortcuts, open_shortcuts

if TYPE_CHECKING:
    from hfexport.backends.origins import Origins
    from hfexport.export_config.probes import Probe
    from hfexport.hub.publish import Publisher
    from hfexport.manifest.model import AdapterEntry, Manifest
    from hfexport.run.inputs import Inputs
    from hfexport.run.observer import Observer

__all__ = ["Failed", "Run", "run"]


def run(
    inputs: Inputs,
    observer: Observer,
    env: Mapping[str, str],
    *,
    further_probes: Callable[[ExportConfig], tuple[Probe, ...]] | None = None,
) -> Manifest:
    """Export a model, validate the artifacts, and install them in the output folder.

    Args:
        inputs: checked inputs.
        observer: receives progress.
        env: environment; child processes get an allow-list of it.
        further_probes: returns probes for shape-free artifacts in addition to hfexport's own.

    Returns:
        The manifest, which is also written to the output folder.

    Raises:
        Failed: the run failed; the output folder then holds a manifest with the error, and no artifacts.
    """
    from hfexport.manifest.entries import new_manifest, provenance_entry
    from hfexport.run.inputs import recorded

    output = Path(inputs.output)
    manifest = new_manifest(recorded(inputs), datetime.now(UTC).isoformat(timespec="seconds"))
    manifest["provenance"] = provenance_entry(env)
    boundary = Boundary(inputs.model, output, manifest, observer.masked)
    with ExitStack() as stack:
        try:
            output.mkdir(parents=True, exist_ok=True)
            stack.callback(give_to_owner, output, env)
            stack.enter_context(output_lock(output))
        except OSError as error:
            problem = InputsError([f"output {inputs.output!r} cannot be made: {error.strerror}"])
            raise boundary.failed(problem) from error
        except InputsError as error:  # another run holds the lock: its files are not touched
            raise boundary.failed(error) from error
        work = Run(inputs, observer, env, Path(), manifest, further_probes)
        with boundary:
            sweep(output)
            with staging_folder(output) as staging:
                found, publisher = replace(work, staging=staging).make(output)
        if found is not None:
            return found
        if publisher is not None:
            work.publish(publisher, output)
    return manifest


@dataclass(frozen=True)
class Run:
    """State that the steps of one run share: folders, inputs, the manifest, and processes that were started early."""

    inputs: Inputs
    observer: Observer
    env: Mapping[str, str]
    staging: Path
    manifest: Manifest
    further_probes: Callable[[ExportConfig], tuple[Probe, ...]] | None = None
    standbys: Standbys | None = None

    @property
    def variant(self) -> str:
        """Return the variant of the weights of the checkpoint, or of an adapter's base; empty for the default files."""
        return self.inputs.weights_variant or ""

    @property
    def stages(self) -> Stages:
        """Return the recorder of the steps in the manifest."""
        return Stages(self.observer, self.manifest["stages"])

    def make(self, output: Path) -> tuple[Manifest | None, Publisher | None]:
        """Make the export in the output folder.

        Returns:
            The manifest of a published export that matches the request (`None` if there is none and the export was
            made), and the publisher of the export (`None` if it is not published).
        """
        from hfexport.manifest.entries import write_manifest

        source, publisher = self.locate()
        if publisher is not None and (found := self.answered(source, publisher)):
            if not lists_same_files(output, found):
                withdraw(output)
            write_manifest(found, output)
            return found, None
        ready = isolated.export(self, self.fetch(source))
        keep_templates(self.inputs, self.staging, self.observer.warn)
        install(ready, output)
        write_manifest(self.manifest, output)
        sweep(output)
        return None, publisher

    def locate(self) -> tuple[Source, Publisher | None]:
        """Find the checkpoint and, for publishing, check the destination, so that its errors are reported early."""
        from hfexport.hub.publish import Destination, open_publisher

        inputs = self.inputs
        with self.stages("Source"):
            source = locate(inputs.model, inputs.revision, inputs.subfolder, self.hub)
            if inputs.push_to_hub is None:
                return source, None
            repository = inputs.model if inputs.push_to_hub == "true" else inputs.push_to_hub
            destination = Destination(
                repository, inputs.branch, inputs.create_pr, inputs.private, inputs.commit_message or "", inputs.dry_run
            )

            def hub() -> Hub:
                token = publishing_token(inputs.hub_token, self.env, repository, self.observer.mask)
                return Hub(token, note=self.observer.note, failure=PublishError)

            return source, open_publisher(hub, destination, source, self.observer.note, self.observer.warn)

    def answered(self, source: Source, publisher: Publisher) -> Manifest | None:
        """Return the manifest of a published export that matches the request."""
        from hfexport.run.inputs import deciding_inputs

        with self.stages("Published exports"):
            found = publisher.answered(
                self.manifest,
                deciding_inputs(),
                describe_source(source, self.variant),
                lambda: self.describe_base(source),
            )
        if found is not None and found["publication"] is not None:
            self.observer.note(
                f"nothing to do: {found['publication']['commit_url']} holds this export, and its files hold"
            )
        return found

    def publish(self, publisher: Publisher, output: Path) -> None:
        """Publish the output folder, which stays in any case.

        Raises:
            Failed: publishing failed.
        """
        from hfexport.manifest.entries import write_manifest

        boundary = Boundary(self.inputs.model, output, self.manifest, self.observer.masked, made=True)
        with boundary, self.stages("Publishing"):
            self.manifest["publication"] = publisher.publish(output, self.manifest)
        write_manifest(self.manifest, output)

    def fetch(self, source: Source) -> Fetched:
        """Download the checkpoint, and the base of an adapter, if they are on the Hub."""
        with self.stages("Checkpoint"):
            folder, digests = source.fetch(
                self.hub, self.observer.note, code=self.inputs.trust_remote_code, variant=self.variant
            )
            adapter = find_adapter(folder)
        if adapter is None:
            return Fetched(source, folder, digests)
        base = self.locate_base(adapter)
        with self.stages("Base of the adapter"):
            return Fetched(
                source, folder, digests, Fetched(base, *base.fetch(self.hub, self.observer.note, variant=self.variant))
            )

    def export_and_validate(self, fetched: Fetched) -> Path:
        """Export and validate downloaded files; return the folder that is ready to be installed.

        This may run code of the checkpoint and of the user: see `hfexport.run.isolated`.
        """
        source, digests = fetched.source, fetched.digests
        given = find_adapter(fetched.folder) or look_over(fetched.folder, self.variant)
        source_identity, base = identity(source, given.folder), None
        if isinstance(given, Adapter):
            assert fetched.base is not None, "an adapter is fetched with its base"
            merged, base, base_identity = self.merge(given, fetched.base)
            source_identity += f" on {base_identity}"
        left = () if source.model else left_in_folder(fetched.folder, (*given.files, *given.along.values()))
        if left:  # for a model on the Hub, this was reported after the download
            self.observer.note(f"Not in the export: {', '.join(left)}")
        contents = look_over(merged) if isinstance(given, Adapter) else given
        self.observer.note(f"{self.inputs.model}: {contents.weights.description}")
        files: dict[Path, Future[str]] = {}
        with Hashing() as hashing:
            hashes = hashing.start_all(given.files, digests)

            def on_made(path: Path) -> None:  # artifacts are hashed during validation
                files[path] = hashing.start(path)

            warm = None if isinstance(given, Adapter) else open_shortcuts(self, contents)
            made = None if warm is None else warm.export(source_identity, on_made)
            if made is None:
                made = self.capture(contents, source, source_identity, base, on_made)

        def digest(path: Path) -> str:
            return files[path].result() if path in files else sha256(path)

        return finish(made, self.manifest, source.to_dict(), hashes(), base, digest)

    def capture(
        self,
        contents: Contents,
        source: Source,
        source_identity: str,
        base: AdapterEntry | None,
        on_made: Callable[[Path], None],
    ) -> Made:
        """Read the model and make its artifacts; see `hfexport.run.warm` for the other way.

        `base` is that of an adapter; `on_made` is called with each complete file of an artifact.
        """
        from hfexport.manifest.entries import source_entry
        from hfexport.validation.reference.start import fork_reference

        origins: dict[str, list[Origins]] = {name: [] for name in self.inputs.formats}
        config_source = self.look_up(contents)
        if self.standbys is not None and isolated.forks_reference(self.inputs):
            fork_reference(self.standbys, contents.root, self.env)
        checkpoint = self.read(contents, self.inputs.formats)
        dtype = resolve_dtype(self.inputs.dtype, checkpoint, config_source, self.observer.note)
        formats = tuple(open_format(name, replace(self.setup, on_origins=origins[name].append)) for name in origins)
        self.manifest["source"] = source_entry(checkpoint, source.to_dict(), {}, base)
        with self.stages("Model configuration"):
            config = find_config(checkpoint, config_source, self.inputs, dtype, self.observer.note)
            resolve_opset(self.inputs.opset, config)
        made = Made(self.exporter(checkpoint, source_identity, config, dtype), config, dtype, (), [])
        made.describe(self.manifest)
        with self.stages("Unused tensors"):
            unused = find_unused(checkpoint, config, dtype, self.inputs.allow_unused or (), self.observer.note)
        exporter = replace(made.exporter, formats=formats, on_made=on_made)
        exporter.ready.mkdir()
        exporter, results = within_positions(exporter, Exporter.run)
        if exporter.family is config:
            keep_shortcuts(self.inputs, self.staging, checkpoint, results, origins)
        return replace(
            made, exporter=exporter, unused=unused, results=results, variants=make_variants(exporter, results)
        )

    def look_up(self, contents: Contents) -> ConfigSource:
        """Find the export config; convert a dense layer of sentence-transformers in a torch file."""
        from hfexport.modeling.conversion.dense import convert_dense

        found = look_up(contents, self.inputs)
        if found.sentence is None:
            if found.requested != self.inputs.task:
                self.observer.note(
                    f"A folder of sentence-transformers, exported for {found.requested} as it loads the model itself; task"
                    " sentence-embedding puts the pooling into the graph as well"
                )
            return found
        return replace(found, sentence=convert_dense(found.sentence, self.staging / "dense", self.env))

    @property
    def setup(self) -> Setup:
        """Return what back ends are made from."""
        return Setup(self.inputs, self.staging, self.env, self.observer, self.stages)

    def exporter(
        self, checkpoint: Checkpoint, identity: str, config: ExportConfig, dtype: str, *, limited: bool = False
    ) -> Exporter:
        """Return the exporter for the artifacts of a checkpoint, without formats to make.

        Args:
            checkpoint: checkpoint as safetensors.
            identity: identity of the checkpoint, stored in artifacts.
            config: export config of the model.
            dtype: dtype of the artifacts.
            limited: limit memory, time and file size of artifacts when they run.
        """
        from hfexport.validation import timeout_for
        from hfexport.validation.validators import References, Subject

        subject = Subject(
            checkpoint=checkpoint.folder,
            folder_in=WeightFolders(checkpoint, config, self.staging, self.stages, self.observer),
            dtype=dtype,
            staging=self.staging,
            env=self.env,
            timeout_s=float(self.inputs.validation_timeout or timeout_for(checkpoint.size_bytes)),
            atol=self.inputs.atol,
            rtol=self.inputs.rtol,
            limited=limited,
            further_probes=self.further_probes,
            standbys=self.standbys,
        )
        return Exporter(
            inputs=self.inputs,
            observer=self.observer,
            staging=self.staging,
            stages=self.stages,
            checkpoint=checkpoint,
            source_identity=identity,
            family=config,
            subject=subject,
            references=References(subject),
        )

    def locate_base(self, adapter: Adapter) -> Source:
        """Find the base of an adapter."""
        return locate(*base_of(adapter, self.inputs.base_model), None, self.hub)

    def describe_base(self, source: Source) -> SourceIdentity | None:
        """Return the description of an adapter's base, see `describe_source`; `None` if the source is no adapter."""
        adapter = find_adapter(source.fetch(self.hub, self.observer.note, variant=self.variant)[0])
        return None if adapter is None else describe_source(self.locate_base(adapter), self.variant)

    def merge(self, adapter: Adapter, fetched: Fetched) -> tuple[Path, AdapterEntry, str]:
        """Merge the adapter into its base (`fetched`); return folder, manifest entry and description of the base."""
        from hfexport.manifest.entries import base_entry
        from hfexport.modeling.conversion.adapter import merge

        contents = look_over(fetched.folder, self.variant)
        self.observer.note(f"{adapter.kind} adapter of {fetched.source.given}: {contents.weights.description}")
        base = self.read(contents)
        with self.stages("Merging of the adapter"):
            merged = merge(adapter, base, self.staging / "merged", self.env)
        hashes = {path: fetched.digests.get(path) or sha256(path) for path in contents.files}
        entry = base_entry(fetched.source.to_dict(), base, hashes, adapter.kind)
        return merged, entry, identity(fetched.source, contents.folder)

    def read(self, contents: Contents, formats: Sequence[str] = ()) -> Checkpoint:
        """Return the folder's safetensors, or its weights converted; `formats` are written afterwards."""
        if contents.weights.format == "safetensors":
            with self.stages("Weights"):
                checkpoint = read_checkpoint(contents)
                if quantization_method(contents.config):
                    refuse_plain_weights(contents.folder / "config.json", contents.config, checkpoint.tensors)
                elif not unwrapped_names(contents.folder, contents.config, checkpoint.tensors).removed:
                    if not contents.weights.variant:
                        return checkpoint
                    return link_variant(checkpoint, self.staging / "variant")
        from hfexport.modeling.conversion import convert

        refuse_large_conversion(contents.weights, formats, Path(self.inputs.output))
        with self.stages("Conversion of weights"):
            checkpoint = convert(contents, self.staging / "converted", self.env)
        assert checkpoint.conversion is not None
        if method := checkpoint.conversion.dequantised:
            self.observer.note(
                f"Weights quantised by {method} were dequantised; the reference is the model of those weights"
            )
        if names := ", ".join(checkpoint.conversion.left_out):
            self.observer.note(f"Weights that the PyTorch model has no use for were left out: {names}")
        if prefixes := ", ".join(checkpoint.conversion.removed_prefixes):
            self.observer.note(f"Removed from the names of the weights, where a wrapper had added it: {prefixes}")
        return checkpoint

    def hub(self) -> Hub:
        token = reading_token(self.inputs.hub_token, self.env, self.observer.mask)
        return Hub(token, note=self.observer.note)
