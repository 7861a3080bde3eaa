"""Measure the speed of the model and of the files that were made from it, for the input `benchmark`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hfexport.backends.formats import FORMATS
from hfexport.manifest.speed import benchmark_entry, described, no_faster, skipped, speed_tables

if TYPE_CHECKING:
    from hfexport.manifest.model import BenchmarkEntry, Manifest
    from hfexport.run.exporter import Exporter, Result
    from hfexport.validation.quality import MadeVariant
    from hfexport.validation.speed import Contender

__all__ = ["measure_export", "measure_files"]


def measure_files(
    exporter: Exporter, manifest: Manifest, results: Sequence[Result], variants: Sequence[MadeVariant]
) -> None:
    """Measure every contender, and write figures and remarks into the manifest.

    What cannot be measured gets a reason there; it is no error.

    Args:
        exporter: has made the files in its folder `ready`.
        manifest: describes the files.
        results: plain files.
        variants: variants of them.
    """
    manifest["benchmark"] = _measured(exporter, results, variants, exporter.ready)
    for number, note in no_faster(manifest).items():
        entry = manifest["variants"][number]
        entry["notes"].append(note)
        exporter.observer.warn(f"{entry['name']}: {note}")


def measure_export(
    exporter: Exporter, folder: Path, results: Sequence[Result], variants: Sequence[MadeVariant]
) -> None:
    """Measure the files of an existing export in `folder` on this machine, and report the tables."""
    entry = _measured(exporter, results, variants, folder)
    exporter.observer.note(described(entry))
    for table in speed_tables(entry):
        for line in table.lines():
            exporter.observer.note(line)


def _measured(
    exporter: Exporter, results: Sequence[Result], variants: Sequence[MadeVariant], folder: Path
) -> BenchmarkEntry:
    """Measure every contender; warn of what was not measured."""
    from hfexport.validation.speed import ROUNDS, Setting, measure_speed

    contenders = list(_contenders(exporter, results, variants))
    subject = exporter.subject
    with (
        exporter.stages("Speed"),
        exporter.observer.progress("speed", ROUNDS * len(contenders), unit="runs") as advance,
    ):
        speed = measure_speed(
            contenders,
            Setting(
                checkpoint=lambda: subject.folder_in(subject.dtype),
                dtype=subject.dtype,
                folder=Path(tempfile.mkdtemp(prefix="speed-", dir=exporter.staging)) / "files",
                env=subject.env,
                rounds=ROUNDS,
                limited=subject.limited,
                advance=advance,
            ),
        )
    entry = benchmark_entry(speed, folder)
    for line in skipped(entry):
        exporter.observer.warn(f"Not measured: {line}")
    return entry


def _contenders(exporter: Exporter, results: Sequence[Result], variants: Sequence[MadeVariant]) -> Iterator[Contender]:
    """Yield the model itself, the plain files of each format, and each variant."""
    from hfexport.validation.speed import EAGER, Contender

    floats_of = {"": "float32", "fp32": "float32", "fp16": "float16"}
    floats = floats_of[exporter.subject.dtype]
    yield Contender(EAGER, "", "", (), floats, exporter.checkpoint.size_bytes)
    for name in dict.fromkeys(artifact.format for artifact, _, _ in results):
        form = FORMATS[name]
        files = [(artifact, config) for artifact, config, _ in results if artifact.format == name]
        size_bytes = sum(path.stat().st_size for artifact, _ in files for path in artifact.files)
        if form.runs_on_cpu:
            yield Contender(form.label, name, "", tuple(files), floats, size_bytes)
        else:
            reason = "its files run on an instance with the device"
            yield Contender(form.label, name, "", (), floats, size_bytes, reason)
    for made in variants:
        name = made.artifacts[0].format
        configs = [config for artifact, config, _ in results if artifact.format == name]
        pairs = [(one, one.config or config) for one, config in zip(made.artifacts, configs, strict=True)]
        size_bytes = sum(path.stat().st_size for artifact in made.artifacts for path in artifact.files)
        own = floats_of[made.artifacts[0].dtype]
        yield Contender(f"{FORMATS[name].label} {made.name}", name, made.name, tuple(pairs), own, size_bytes)
