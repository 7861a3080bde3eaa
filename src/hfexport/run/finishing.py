"""Describe validated artifacts in the manifest, and decide the verdict of the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hfexport.run.decision import decide
from hfexport.run.speed import measure_files
from hfexport.run.targets import write_along
from hfexport.run.variants import hold_quality

if TYPE_CHECKING:
    from hfexport.export_config import ExportConfig
    from hfexport.manifest.model import AdapterEntry, Dtype, GivenEntry, Manifest
    from hfexport.run.exporter import Exporter, Result
    from hfexport.validation.quality import MadeVariant

__all__ = ["Made", "finish"]


@dataclass(frozen=True)
class Made:
    """Validated artifacts of one checkpoint.

    Attributes:
        exporter: the exporter that made them.
        config: export config of the model.
        dtype: dtype of the artifacts.
        unused: names of the checkpoint's tensors that the model does not use.
        results: artifacts with their export configs and verdicts.
        variants: variants of the ONNX files.
    """

    exporter: Exporter
    config: ExportConfig
    dtype: str
    unused: Sequence[str]
    results: list[Result]
    variants: Sequence[MadeVariant] = ()

    def describe(self, manifest: Manifest) -> None:
        """Set task, dtype and interface in the manifest."""
        manifest["task"], manifest["dtype"] = self.config.task.name, cast("Dtype", self.dtype)
        manifest["interface"] = self.config.origin


def finish(
    made: Made,
    manifest: Manifest,
    source: GivenEntry,
    hashes: Mapping[Path, str],
    base: AdapterEntry | None,
    digest: Callable[[Path], str],
) -> Path:
    """Write all files besides artifacts, describe every file in the manifest, and set the verdict.

    Args:
        made: validated artifacts.
        manifest: manifest of the run.
        source: description of the checkpoint's source.
        hashes: SHA-256 of the checkpoint's files.
        base: base of an adapter.
        digest: returns the SHA-256 of a file.

    Returns:
        Folder that is ready to be installed.

    Raises:
        ValidationError: an artifact failed, or a variant is not good enough.
    """
    from hfexport.manifest.entries import artifact_entry, files_entry, source_entry, variant_entry

    exporter = made.exporter
    manifest["source"] = source_entry(exporter.checkpoint, source, hashes, base, made.unused)
    with exporter.stages("Files"):
        manifest["artifacts"] = [
            artifact_entry(
                artifact, artifact.config or config, artifact.dtype or made.dtype, exporter.ready, verdict, digest
            )
            for artifact, config, verdict in made.results
        ]
        manifest["variants"] = [variant_entry(one, exporter.ready, digest) for one in made.variants]
        manifest["files"] = files_entry(write_along(exporter, made.results, made.variants), exporter.ready)
    manifest["verdict"] = decide([(artifact, verdict) for artifact, _, verdict in made.results], exporter.inputs)
    hold_quality(made.variants)
    if exporter.inputs.benchmark:
        measure_files(exporter, manifest, made.results, made.variants)
    return exporter.ready
