"""`hfexport verify`: check an export against its manifest and its artifacts against the source model.

The manifest is not trusted: files are hashed, the source is downloaded again, and artifacts are compared with it within
the tolerances of this version or of the caller. Code that a manifest names is not run.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from hfexport._internal.standby import Standbys
from hfexport.backends.formats import FORMATS
from hfexport.checkpoint import look_over, sha256
from hfexport.checkpoint.adapter import Adapter, base_of, find_adapter
from hfexport.checkpoint.local import transformer_folder
from hfexport.errors import CheckpointError, UnsupportedError, ValidationError, first_line
from hfexport.export_config.tasks import TASKS
from hfexport.hub.client import Hub
from hfexport.hub.credentials import reading_token
from hfexport.hub.source import Fetched, Source, locate
from hfexport.manifest.entries import MANIFEST_FILE, check_manifest, listed_files, new_manifest, source_of
from hfexport.manifest.model import BaseEntry, FileEntry, Manifest
from hfexport.modeling.unused import Unused, unused_tensors
from hfexport.run import isolated
from hfexport.run.exporter import Exporter
from hfexport.run.formats import FormatRun, open_format
from hfexport.run.inputs import Inputs, recorded
from hfexport.run.messages import VerifySubject
from hfexport.run.observer import Observer
from hfexport.run.pipeline import Run
from hfexport.run.positions import within_positions
from hfexport.run.selection import find_config
from hfexport.run.speed import measure_export
from hfexport.run.targets import compare_again
from hfexport.run.variants import measure_again
from hfexport.validation import ArtifactVerdict

if TYPE_CHECKING:
    from hfexport.run.exporter import Result

__all__ = ["Export", "run_again", "verify"]

MAX_MANIFEST_BYTES = 2**26


@dataclass(frozen=True)
class Export:
    """An export to verify: local folder and manifest."""

    name: str
    folder: Path
    manifest: Manifest

    def to_message(self) -> VerifySubject:
        """Convert to the part of a job that `from_message` reads."""
        return VerifySubject(name=self.name, folder=str(self.folder), manifest=self.manifest)

    @classmethod
    def from_message(cls, message: VerifySubject) -> Export:
        """Create from the result of `to_message`."""
        return cls(message.name, Path(message.folder), message.manifest)


def verify(place: str, inputs: Inputs, observer: Observer, env: Mapping[str, str]) -> Manifest:
    """Verify an export.

    Args:
        place: a folder, or `owner/name` on the Hub.
        inputs: `revision` and `subfolder` of the place; `model`, the source checkpoint if it is not where the manifest
            says; `atol` and `rtol` of the comparison; `neuron_python`, `hub_token`, `trust_remote_code`,
            `export_config`.
        observer: receives progress.
        env: environment; child processes get an allow-list of it.

    Returns:
        The manifest, which was found to be true.

    Raises:
        CheckpointError: there is no export, or its source is not available.
        ValidationError: a statement of the manifest is wrong, or an artifact's outputs do not match the model's.
        UnsupportedError: an artifact cannot be run here.
    """

    def hub() -> Hub:
        return Hub(reading_token(inputs.hub_token, env, observer.mask), note=observer.note)

    with observer.stage("Files"):
        export = _open(place, inputs, hub)
        _hold_hashes(export)
    observer.note(f"{place}: all files have the hashes of the manifest")
    with observer.stage("Source"):
        source = _source(export, inputs, hub)
        folder, digests = source.fetch(
            hub, observer.note, code=inputs.trust_remote_code, variant=inputs.weights_variant or ""
        )
        _hold_source(export, folder, digests)
        adapter = find_adapter(folder)
        base = None if adapter is None else _fetch_base(export, adapter, inputs, hub, observer)
    fetched = Fetched(source, folder, digests, base)
    with tempfile.TemporaryDirectory(prefix="hfexport-") as staging:
        isolated.verify(export.to_message(), fetched, inputs, Path(staging), observer, env)
    return export.manifest


def _open(place: str, inputs: Inputs, hub: Callable[[], Hub]) -> Export:
    """Find the export; from the Hub, download the files that its manifest lists."""
    if not Path(place).is_dir():
        found = locate(place, inputs.revision, inputs.subfolder, hub)
        if found.model is None:
            raise CheckpointError(f"{place}: is no folder", remedy="Give an output folder, or owner/name on the Hub.")
        model, client = found.model, hub()
        prefix = f"{model.subfolder}/" if model.subfolder else ""
        present = client.files(model.repository, model.commit)
        if prefix + MANIFEST_FILE not in present:
            raise CheckpointError(
                f"{place}: has no {prefix}{MANIFEST_FILE} at {model.commit[:12]}",
                remedy="Name a repository that hfexport published to, and its revision.",
            )
        root = client.download(model.repository, model.commit, [prefix + MANIFEST_FILE]) / prefix
        manifest = _read_manifest(root / MANIFEST_FILE)
        listed = [prefix + path for path in _entries(manifest) if prefix + path in present]
        client.download(model.repository, model.commit, listed)
        return Export(place, root, manifest)
    path = Path(place, inputs.subfolder or "", MANIFEST_FILE)
    if not path.is_file():
        raise CheckpointError(f"{place}: has no {MANIFEST_FILE}", remedy="Give the output folder of an export.")
    return Export(place, path.parent, _read_manifest(path))


def _read_manifest(path: Path) -> Manifest:
    import jsonschema

    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise ValidationError(f"{path.name}: has {path.stat().st_size} bytes, too many for a manifest")
    try:
        content = json.loads(path.read_bytes())
        check_manifest(content)
        # The schema also accepts values that the types do not, such as 1.0 for a whole number.
        manifest = msgspec.convert(content, Manifest)
    except (ValueError, RecursionError, AttributeError, jsonschema.ValidationError) as error:
        raise ValidationError(f"{path.name}: is no manifest of hfexport: {first_line(error, limit=200)}") from error
    if manifest["verdict"] not in ("passed", "incomplete"):
        raise ValidationError(f"{path.name}: its verdict is {manifest['verdict']}")
    return manifest


def _entries(manifest: Manifest) -> dict[str, FileEntry]:
    """Return the files of a manifest by path.

    Raises:
        ValidationError: a path leads out of the folder.
    """
    listed = listed_files(manifest)
    for entry in listed:
        path = PurePosixPath(entry["path"])
        if path.is_absolute() or ".." in path.parts or "\\" in entry["path"] or "\0" in entry["path"]:
            raise ValidationError(f"{MANIFEST_FILE}: lists {entry['path']!r}, which is outside of the export")
    paths = {artifact["path"] for artifact in manifest["artifacts"]}
    paths |= {path for variant in manifest.get("variants", []) for path in variant["paths"]}
    entries = {entry["path"]: entry for entry in listed}
    if unlisted := sorted(paths - entries.keys()):
        raise ValidationError(f"{MANIFEST_FILE}: names {unlisted[0]!r}, of which it gives no hash")
    return entries


def _hold_hashes(export: Export) -> None:
    wrong = []
    for name, entry in _entries(export.manifest).items():
        path = export.folder / name
        if not path.is_file():
            wrong.append(f"{name}: is missing")
        elif path.stat().st_size != entry["size_bytes"] or sha256(path) != entry["sha256"]:
            wrong.append(f"{name}: is not the file that the manifest describes")
    if wrong:
        raise ValidationError("\n".join(wrong), remedy="Do not use this export; make or download it again.")


def _source(export: Export, inputs: Inputs, hub: Callable[[], Hub]) -> Source:
    """Return the location of the source checkpoint: that of the user, or else that of the manifest."""
    known = source_of(export.manifest)["hub"]
    if inputs.model != Inputs().model:
        return locate(inputs.model, known["commit"] if known and not Path(inputs.model).is_dir() else "main", None, hub)
    if known is not None:
        return locate(known["repository"], known["commit"], known["subfolder"] or None, hub)
    raise CheckpointError(
        f"{export.name}: was made from a folder ({source_of(export.manifest)['model']}); its files have the right hashes, "
        "but their outputs cannot be compared with the model's",
        remedy="Give the checkpoint that it was made from as --model.",
    )


def _hold_source(export: Export, folder: Path, digests: Mapping[Path, str]) -> None:
    """Check that the source is the checkpoint that the manifest names."""
    for entry in source_of(export.manifest)["files"]:
        path = transformer_folder(folder) / PurePosixPath(entry["path"]).name
        if not path.is_file() or (digests.get(path) or sha256(path)) != entry["sha256"]:
            raise ValidationError(
                f"{path.name}: this file of the checkpoint differs from the exported one",
                remedy="Give the checkpoint that it was made from as --model.",
            )


def run_again(
    export: Export,
    fetched: Fetched,
    given: Inputs,
    observer: Observer,
    env: Mapping[str, str],
    staging: Path,
    standbys: Standbys | None = None,
) -> None:
    """Run every artifact against the unpatched model on the probes of this version.

    Artifacts are untrusted code: they run with limits of memory, time and file size. See `hfexport.run.isolated`.
    """
    manifest = export.manifest
    inputs = replace(
        given,
        task=_task(manifest),
        dtype=manifest["dtype"] or "auto",
        layout=_layout(manifest),
        outputs=_outputs(manifest),
        fixed=_fixed(manifest),
        validate="strict",
        **_requested_sizes(manifest),
    )
    blank = new_manifest(recorded(inputs), manifest["created"])
    run = Run(inputs, observer, env, staging, blank, standbys=standbys)
    found = find_adapter(fetched.folder) or look_over(fetched.folder, run.variant)
    contents = look_over(_merged(export, found, fetched, run)) if isinstance(found, Adapter) else found
    checkpoint = run.read(contents)
    config = find_config(checkpoint, run.look_up(contents), inputs, inputs.dtype, observer.note)
    if config.task.name != (manifest["task"] or "default"):
        raise ValidationError(
            f"{MANIFEST_FILE}: its task is {manifest['task']}; the checkpoint's is {config.task.name}"
        )
    _hold_unused(manifest, unused_tensors(checkpoint, config, inputs.dtype), observer)
    exporter = run.exporter(checkpoint, "", config, inputs.dtype, limited=True)
    try:
        made = {artifact["format"] for artifact in manifest["artifacts"]}
        forms: list[FormatRun] = []
        results: list[Result] = []
        for name in (name for name in FORMATS if name in made):
            form = open_format(name, replace(run.setup, verifying=True))
            forms.append(form)
            entries = [entry for entry in manifest["artifacts"] if entry["format"] == form.backend.format]
            exporter, validated = within_positions(
                exporter, partial(Exporter.revalidate, form=form, folder=export.folder, entries=entries)
            )
            for artifact, verdict in validated:
                _hold_verdict(artifact.name, verdict)
                results.append((artifact, artifact.config or config, verdict))
                ran = f"{verdict.reason}; it " if verdict.reason else ""
                observer.note(f"{artifact.name}: {ran}answers as the model does, within {verdict.max_abs:.2g}")
        variants = measure_again(exporter, forms, export.folder, manifest)
        further = [export.folder / entry["path"] for entry in manifest["files"]]
        compare_again(exporter, results, variants, export.folder, further)
        if given.benchmark:
            measure_export(exporter, export.folder, results, variants)
    finally:
        exporter.references.stop()


def _hold_unused(manifest: Manifest, found: Unused, observer: Observer) -> None:
    """Compare the tensors that the model does not take with those that the manifest lists.

    Raises:
        ValidationError: the manifest does not list one of them. Manifests without a list, of earlier versions, may lack
            those that the task is known to leave out.
    """
    listed = source_of(manifest).get("unused_tensors")
    unused = sorted({*found.unexpected, *(() if listed is None else found.left_out)} - set(listed or ()))
    if unused:
        raise ValidationError(
            f"{MANIFEST_FILE}: does not say that tensors of the checkpoint are not in the model: "
            + ", ".join(unused[:10])
            + (f" and {len(unused) - 10} more" if len(unused) > 10 else ""),
            remedy="Export the checkpoint again, and read what the run says about these tensors.",
        )
    if every := sorted({*found.unexpected, *found.left_out}):
        observer.note(f"Tensors of the checkpoint that are not in the model: {', '.join(every)}")


def _requested_sizes(manifest: Manifest) -> dict[str, Any]:
    """Return the sizes that were requested for artifacts of fixed sizes; they only decide the sizes of the probes."""
    defaults = Inputs()
    names = ("neuron_target", "batch_size", "sequence_length", "neuron_decoder_length", "neuron_beams")
    asked = {name: manifest["inputs"].get(name) for name in (*names, "neuron_dynamic_batch_size")}
    numbers = (*names[1:], "neuron_dynamic_batch_size")
    fitting = {name: value for name, value in asked.items() if name in numbers and isinstance(value, int)}
    target = asked["neuron_target"] if asked["neuron_target"] in ("inf1", "inf2") else defaults.neuron_target
    return {**fitting, "neuron_target": target}


def _fetch_base(
    export: Export, adapter: Adapter, inputs: Inputs, hub: Callable[[], Hub], observer: Observer
) -> Fetched:
    """Download an adapter's base at the commit in the manifest.

    The adapter or the user names the base, not the manifest.
    """
    known = _known_base(export)
    name, revision = base_of(adapter, inputs.base_model)
    if known["hub"] is not None:
        if known["hub"]["repository"] != name:
            raise ValidationError(
                f"{MANIFEST_FILE}: says that the adapter was merged into {known['hub']['repository']}, but its base is {name}",
                remedy="If that was meant, give the base as --base-model.",
            )
        revision = known["hub"]["commit"]
    source = locate(name, revision, None, hub)
    return Fetched(source, *source.fetch(hub, observer.note, variant=inputs.weights_variant or ""))


def _known_base(export: Export) -> BaseEntry:
    merged = source_of(export.manifest)["adapter"]
    if merged is None:
        raise ValidationError(f"{MANIFEST_FILE}: does not say what the adapter was merged into")
    return merged["base"]


def _merged(export: Export, adapter: Adapter, fetched: Fetched, run: Run) -> Path:
    """Return the adapter merged into its base, which must be the base in the manifest."""
    known = _known_base(export)
    assert fetched.base is not None, "an adapter is fetched with its base"
    folder, base, _ = run.merge(adapter, fetched.base)
    hashes = [{file["path"]: file["sha256"] for file in entry["files"]} for entry in (known, base["base"])]
    for path in sorted(hashes[0].keys() | hashes[1].keys()):
        if hashes[0].get(path) != hashes[1].get(path):
            raise ValidationError(
                f"{path}: this file of the adapter's base differs from that of the base it was merged into",
                remedy="Give the base that it was merged into as --base-model.",
            )
    return folder


def _hold_verdict(path: str, verdict: ArtifactVerdict) -> None:
    """Raise an error if an artifact failed validation or its outputs are not conclusive.

    Raises:
        ValidationError: the artifact failed.
        UnsupportedError: the model's values vary too little for a conclusion.
    """
    for check in verdict.checks if verdict.verdict == "not_run" else ():
        raise UnsupportedError(
            f"{path}: its files have the right hashes, but {check.name} was not run: {check.reason}",
            remedy="Verify it where it is served, on an instance with a device.",
        )
    if verdict.verdict == "incomplete":
        raise UnsupportedError(
            f"{path}: its files have the right hashes, but {verdict.reason}",
            remedy="Give a tolerance that is smaller than the differences between the model's values, as --atol.",
        )
    if verdict.verdict != "passed":
        failures = verdict.failures or (verdict.reason or "no probe was answered",)
        raise ValidationError(
            "\n".join(f"{path}: {line}" for line in failures[:5]),
            remedy="Do not use this export. If it was made with a wider tolerance that you accept, give it as --atol.",
        )


def _outputs(manifest: Manifest) -> tuple[str, ...] | None:
    """Return the requested further outputs; `None` if config.json decides."""
    asked = manifest["inputs"].get("outputs")
    return tuple(str(name) for name in asked) if isinstance(asked, list | tuple) and asked else None


def _fixed(manifest: Manifest) -> dict[str, int] | None:
    """Return the sizes that ONNX graphs were fixed to, which only decide the sizes that they are run with."""
    asked = manifest["inputs"].get("fixed")
    if not isinstance(asked, dict) or not all(type(size) is int and 0 <= size < 2**31 for size in asked.values()):
        return None
    return dict(asked) or None


def _layout(manifest: Manifest) -> Literal["auto", "split", "single"]:
    """Return the layout of an encoder-decoder's graphs, which only decides what is run."""
    layouts: tuple[Literal["split", "single"], ...] = ("split", "single")
    return next((layout for layout in layouts if manifest["inputs"].get("layout") == layout), "auto")


def _task(manifest: Manifest) -> str:
    """Return the task to select: that of the manifest, or `auto` if it was inferred from the checkpoint's class."""
    task = manifest["task"] or "default"
    return task if task in TASKS else "auto"
