"""Describe the export configs of a checkpoint and compute their references, in one process.

Runs as a child process (see `hfexport._internal.workers`) when a shortcut has led the exporting process to the templates
of a checkpoint, so that it need not import torch. Everything that decides validation is determined here, from
the checkpoint and by the same functions as without a shortcut; the cache is not used.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from hfexport._internal.messages import plain, read
from hfexport.checkpoint import look_over
from hfexport.errors import UnsupportedError
from hfexport.run.messages import DescribedGraph, DescribingJob, Description
from hfexport.run.observer import Advance, StageOutcome

if TYPE_CHECKING:
    from hfexport._internal.workers import Worker
    from hfexport.backends.base import TemplateBackend
    from hfexport.manifest.model import Manifest

__all__ = ["DESCRIPTION", "await_description", "run"]

DESCRIPTION: Final = "description.json"
"""Name of the file with the description of a checkpoint."""

_POLL_S: Final = 0.005
"""Interval for looking whether the description is complete."""


def _nothing(amount: int) -> None:
    del amount


@dataclass(frozen=True)
class _Notes:
    """An `Observer` that keeps notes and warnings for the exporting process."""

    kept: list[tuple[Literal["note", "warn"], str]] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[StageOutcome | None]:
        """Report nothing: the exporting process reports its own steps."""
        del name
        yield None

    @contextmanager
    def progress(self, name: str, total: int, *, unit: str = "") -> Iterator[Advance]:
        """Report nothing."""
        del name, total, unit
        yield _nothing

    def note(self, text: str) -> None:
        self.kept.append(("note", text))

    def warn(self, text: str) -> None:
        self.kept.append(("warn", text))

    def mask(self, secret: str) -> None:
        """Ignore secrets: this process has none."""

    def masked(self, text: str) -> str:
        return text

    def child_output(self, lines: Iterable[str]) -> None:
        """Report nothing: no other program runs here."""


def run(values: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the checkpoint and run its model on all probes.

    Args:
        values: those of a `DescribingJob`.

    Returns:
        The values of a `ReferenceAnswer`. The description is in a file before, see `await_description`.

    Raises:
        HfexportError: the checkpoint cannot be exported as the inputs ask.
    """
    from hfexport.export_config.described import describe_config
    from hfexport.modeling.load import load_model, tied_names
    from hfexport.modeling.unused import find_unused
    from hfexport.run.formats import open_format
    from hfexport.run.pipeline import Run
    from hfexport.run.selection import find_config, resolve_dtype, resolve_opset
    from hfexport.validation.reference import worker
    from hfexport.validation.reference.start import describe_references

    job = read(values, DescribingJob)
    inputs = job.inputs
    notes = _Notes()
    staging = Path(job.staging)
    work = Run(inputs, notes, os.environ, staging, cast("Manifest", {"stages": []}))
    contents = look_over(Path(job.folder), work.variant)
    source = work.look_up(contents)
    checkpoint = work.read(contents, inputs.formats)
    if checkpoint.conversion is not None:
        raise UnsupportedError("the checkpoint is converted first", remedy="Export it without the cache.")
    dtype = resolve_dtype(inputs.dtype, checkpoint, source, notes.note)
    config = find_config(checkpoint, source, inputs, dtype, notes.note)
    resolve_opset(inputs.opset, config)
    unused = find_unused(checkpoint, config, dtype, inputs.allow_unused or (), notes.note)
    forms = tuple(open_format(name, work.setup) for name in inputs.formats)
    exporter = replace(work.exporter(checkpoint, "", config, dtype), formats=forms)
    exporter.refuse_misfit()
    graphs = {form.backend.format: exporter.graphs(form.backend) for form in forms}
    # Every layout of an encoder-decoder's graphs has the same branches, and so the same references.
    branches = {branch.graph: branch for made in graphs.values() for graph in made for branch in graph.branches}
    subject = exporter.subject
    reference = describe_references(
        subject.folder_in(dtype),
        [(branch, subject.probes(branch, {})) for branch in branches.values()],
        dtype,
        folder=Path(job.answers),
        threads=job.threads,
        exact_checkpoint=subject.folder_in("fp32") if dtype == "fp16" else None,
    )
    described: list[DescribedGraph] = []
    tied: dict[str, Sequence[Sequence[str]]] = {}
    for form in forms:
        for graph in graphs[form.backend.format]:
            # As for a capture, the key is that of the config and the weights that loading the model leaves behind.
            if graph.graph not in tied:
                tied[graph.graph] = tied_names(load_model(subject.folder_in(dtype), graph, dtype))
            key = cast("TemplateBackend", form.backend).key(exporter.job(graph, dtype, staging), tied[graph.graph])
            described.append(DescribedGraph(format=form.backend.format, key=key, config=describe_config(graph, dtype)))
    description = Description(
        notes=tuple(notes.kept),
        dtype="fp16" if dtype == "fp16" else "fp32",
        unused=tuple(unused),
        reference=reference,
        graphs=tuple(described),
    )
    staged = Path(job.answers, f"{DESCRIPTION}.part")
    staged.write_text(json.dumps(plain(description)), encoding="utf-8")
    os.replace(staged, Path(job.answers, DESCRIPTION))
    return worker.run(plain(reference))


def await_description(process: Worker, folder: Path, timeout_s: float) -> Description:
    """Wait for the description that the process of `run` writes to `folder` before it runs the model.

    Args:
        process: the process.
        folder: the folder `answers` of its job.
        timeout_s: time limit in seconds.

    Raises:
        HfexportError: the checkpoint cannot be exported as the inputs ask, or the process did not describe it.
    """
    path = folder / DESCRIPTION
    end = time.monotonic() + timeout_s
    while process.running and time.monotonic() < end:
        if path.exists():
            break
        time.sleep(_POLL_S)
    if not path.exists():
        process.result(max(0.0, end - time.monotonic()))
    return read(json.loads(path.read_bytes()), Description)
