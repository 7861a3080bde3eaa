"""Copy the checkpoint's other files into the output, and write or verify the files of the input `target`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hfexport.backends.onnx.targets import TARGETS, Divided, Exported
from hfexport.backends.onnx.variants.names import FORMAT
from hfexport.checkpoint import copy_along
from hfexport.errors import ValidationError

if TYPE_CHECKING:
    from hfexport.backends.base import Artifact
    from hfexport.backends.onnx.targets import Rewritten
    from hfexport.export_config import ExportConfig
    from hfexport.run.exporter import Exporter, Result
    from hfexport.validation.quality import MadeVariant

__all__ = ["compare_again", "write_along"]


def write_along(exporter: Exporter, results: Sequence[Result], variants: Sequence[MadeVariant]) -> list[Path]:
    """Write all files besides artifacts into the output folder.

    Args:
        exporter: has made the artifacts.
        results: its results.
        variants: variants of the artifacts.

    Returns:
        Paths of the files.

    Raises:
        ValidationError: a graph that a target made differs from the proven one.
    """
    written = dict.fromkeys(copy_along(exporter.checkpoint.along, exporter.ready))
    plain = [(artifact, config) for artifact, config, _ in results if artifact.format == FORMAT]
    files = [path for artifact, _ in plain for path in artifact.files]
    further = [variant for variant in variants if variant.artifacts[0].format == FORMAT]
    files += [path for variant in further for artifact in variant.artifacts for path in artifact.files]
    artifacts = _by_path(results, further)
    for name in exporter.inputs.target or ():
        exported = Exported(
            folder=exporter.ready,
            graphs=tuple(config for _, config in plain),
            files=files,
            variants=[variant.name for variant in further],
        )
        made = TARGETS[name].write(exported)
        for rewritten in TARGETS[name].rewritten(exporter.ready, made):
            _compare(exporter, rewritten, artifacts)
        written |= dict.fromkeys(made)
    return list(written)


def compare_again(
    exporter: Exporter, results: Sequence[Result], variants: Sequence[MadeVariant], folder: Path, files: Sequence[Path]
) -> None:
    """Compare the graphs that targets made in an existing export with the proven ones.

    Args:
        exporter: exporter of the export's model.
        results: its artifacts, which were validated.
        variants: its variants, which were measured.
        folder: folder of the export.
        files: its files that are no artifact and no variant.

    Raises:
        ValidationError: a graph differs from the proven one, or there is no proven one.
    """
    artifacts = _by_path(results, [variant for variant in variants if variant.artifacts[0].format == FORMAT])
    for target in TARGETS.values():
        for rewritten in target.rewritten(folder, files):
            exporter.observer.note(_compare(exporter, rewritten, artifacts))


def _by_path(results: Sequence[Result], variants: Sequence[MadeVariant]) -> dict[Path, tuple[Artifact, ExportConfig]]:
    """Return the ONNX artifacts and variants by the path of their graph."""
    plain = [(artifact, config) for artifact, config, _ in results if artifact.format == FORMAT]
    by_path = {artifact.path: (artifact, config) for artifact, config in plain}
    return by_path | {made.path: (made, made.config or plain[0][1]) for one in variants for made in one.artifacts}


def _compare(
    exporter: Exporter, made: Rewritten | Divided, artifacts: Mapping[Path, tuple[Artifact, ExportConfig]]
) -> str:
    """Compare graphs that a target made with the proven ones; return the names of both."""
    from hfexport.validation.divided import check_divided
    from hfexport.validation.logits import Child
    from hfexport.validation.padding import check_padding

    subject = exporter.subject

    def proven(path: Path) -> tuple[Artifact, ExportConfig]:
        if path not in artifacts:
            raise ValidationError(f"{path.name}: is no graph of this export, but a graph of a target is made from it")
        artifact, config = artifacts[path]
        return replace(artifact, dtype=artifact.dtype or subject.dtype), config

    def child(path: Path) -> Child:
        return Child(subject.staging / f"compared-{path.stem}", subject.env, subject.timeout_s, subject.limited)

    if isinstance(made, Divided):
        check_divided(
            (proven(made.encoder), proven(made.decoder)),
            (made.new_encoder, made.new_decoder),
            child(made.new_decoder),
            is_variant=made.decoder.stem not in {config.graph for _, config in artifacts.values()},
        )
        return (
            f"{made.new_encoder.name}, {made.new_decoder.name}: answer as {made.encoder.name}, {made.decoder.name} do"
        )
    artifact, config = proven(made.source)
    check_padding(
        artifact,
        made.path,
        config,
        made.pad,
        child(made.path),
    )
    return f"{made.path.name}: answers as {made.source.name} does"
