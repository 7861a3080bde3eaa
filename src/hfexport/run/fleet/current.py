"""Find the checkpoint of one model of a fleet: its size, and whether its export is already there and current."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from hfexport.checkpoint import look_over
from hfexport.checkpoint.adapter import find_adapter
from hfexport.errors import HfexportError, PublishError
from hfexport.hub.client import Hub
from hfexport.hub.publish import Destination, open_publisher
from hfexport.hub.publish.answered import difference
from hfexport.hub.snapshot import HubModel, weights_bytes
from hfexport.hub.source import Source, describe_source, locate
from hfexport.manifest.entries import MANIFEST_FILE, new_manifest, published_url
from hfexport.manifest.model import Manifest
from hfexport.run.inputs import Inputs, deciding_inputs, recorded
from hfexport.run.observer import Observer
from hfexport.run.pipeline import Run

__all__ = ["Found", "find", "read_manifest"]


@dataclass(frozen=True)
class Found:
    """The state of one model before it is exported.

    Attributes:
        weights_bytes: size of the weights, the base of an adapter included; 0 if unknown.
        current: place of an export that is current, in words for the user; empty if the model has to be exported.
        commit: commit of a model on the Hub; empty for a folder.
        problem: reason why the checkpoint could not be looked at; its own run says more.
    """

    weights_bytes: int = 0
    current: str = ""
    commit: str = ""
    problem: str = ""


def find(inputs: Inputs, observer: Observer, env: Mapping[str, str], hub: Callable[[], Hub]) -> Found:
    """Look at a model's checkpoint and at its export, without changing anything.

    Args:
        inputs: inputs of the model.
        observer: receives notes on why an export is not current.
        env: environment variables.
        hub: creates a client that only reads.
    """
    manifest = new_manifest(recorded(inputs), datetime.now(UTC).isoformat(timespec="seconds"))
    work = _Looking(inputs, observer, env, Path(), manifest, client=hub)
    try:
        source = locate(inputs.model, inputs.revision, inputs.subfolder, hub)
        size = _size(source, work)
    except HfexportError as error:
        return Found(problem=error.message)
    commit = "" if source.model is None else source.model.commit
    try:
        current = _published(work, source) if inputs.push_to_hub else _here(work, source)
    except HfexportError as error:
        return Found(size, commit=commit, problem=error.message)
    return Found(size, current, commit)


@dataclass(frozen=True)
class _Looking(Run):
    """A run that reads with a given client and publishes nothing."""

    client: Callable[[], Hub] = Hub

    def hub(self) -> Hub:
        return self.client()


def _size(source: Source, work: Run) -> int:
    """Return the size of the weights in bytes, those of an adapter's base included."""
    if source.model is not None:
        own = weights_bytes(work.hub(), source.model, work.variant)
        return own + (_base_size(source, work) if _has_adapter(source.model, work) else 0)
    adapter = find_adapter(source.folder)
    if adapter is not None:
        return sum(path.stat().st_size for path in adapter.files) + _base_size(source, work)
    return sum(path.stat().st_size for path in look_over(source.folder, work.variant).weights.files)


def _has_adapter(model: HubModel, work: Run) -> bool:
    names = work.hub().files(model.repository, model.commit)
    return any(name.rsplit("/", 1)[-1] == "adapter_config.json" for name in names)


def _base_size(source: Source, work: Run) -> int:
    """Return the size of the weights of an adapter's base in bytes; 0 if it cannot be found."""
    try:
        adapter = find_adapter(source.fetch(work.hub, work.observer.note, variant=work.variant)[0])
        return 0 if adapter is None else _size(work.locate_base(adapter), work)
    except HfexportError:
        return 0


def _here(work: Run, source: Source) -> str:
    """Return the output folder if it holds this export; else an empty text."""
    output = Path(work.inputs.output)
    found = read_manifest(output)
    if found is None:
        return ""
    reason = difference(
        found,
        work.manifest,
        deciding_inputs(),
        describe_source(source, work.variant),
        lambda: work.describe_base(source),
        output,
    )
    if reason is None:
        return str(output)
    work.observer.note(f"{work.inputs.model}: {output} holds an export, but {reason}")
    return ""


def _published(work: Run, source: Source) -> str:
    """Return the address of a published export that is current; else an empty text."""
    inputs = work.inputs
    repository = inputs.model if inputs.push_to_hub == "true" else str(inputs.push_to_hub)
    destination = Destination(repository, inputs.branch, inputs.create_pr, dry_run=True)
    reader = work.hub()

    def client() -> Hub:
        return Hub(str(reader.token) if reader.token else None, note=work.observer.note, failure=PublishError)

    publisher = open_publisher(client, destination, source, work.observer.note, work.observer.warn)
    wanted: Manifest = work.manifest
    found = publisher.answered(
        wanted, deciding_inputs(), describe_source(source, work.variant), lambda: work.describe_base(source)
    )
    return "" if found is None else published_url(found)


def read_manifest(output: Path) -> Manifest | None:
    """Read the manifest of an output folder; `None` if there is none or it is not JSON."""
    try:
        found = json.loads((output / MANIFEST_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return cast("Manifest", found) if isinstance(found, dict) else None
