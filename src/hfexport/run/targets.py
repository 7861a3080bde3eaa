"""Copy the checkpoint's other files into the output, and write the files of the input `target`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hfexport.backends.onnx.targets import TARGETS, Exported
from hfexport.backends.onnx.variants.names import FORMAT
from hfexport.checkpoint import copy_along

if TYPE_CHECKING:
    from hfexport.backends.base import Artifact
    from hfexport.backends.onnx.targets import Rewritten
    from hfexport.export_config import ExportConfig
    from hfexport.run.exporter import Exporter, Result
    from hfexport.validation.quality import MadeVariant

__all__ = ["write_along"]


def write_along(exporter: Exporter, results: Sequence[Result], variants: Sequence[MadeVariant]) -> list[Path]:
    """Write all files besides artifacts into the output folder.

    Args:
        exporter: has made the artifacts.
        results: what it returned.
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
    artifacts = {artifact.path: (artifact, config) for artifact, config in plain}
    artifacts |= {made.path: (made, made.config or plain[0][1]) for one in further for made in one.artifacts}
    for name in exporter.inputs.target or ():
        exported = Exported(
            folder=exporter.ready,
            graphs=tuple(config for _, config in plain),
            files=files,
            variants=[variant.name for variant in further],
        )
        made = TARGETS[name].write(exported)
        for rewritten in TARGETS[name].rewritten(made):
            _compare(exporter, rewritten, artifacts[rewritten.source])
        written |= dict.fromkeys(made)
    return list(written)


def _compare(exporter: Exporter, rewritten: Rewritten, proven: tuple[Artifact, ExportConfig]) -> None:
    """Compare a graph that a target made with the proven one."""
    from hfexport.validation.padding import check_padding

    artifact, config = proven
    subject = exporter.subject
    folder = subject.staging / f"padding-{rewritten.path.stem}"
    check_padding(
        artifact, rewritten.path, config, rewritten.pad, folder=folder, env=subject.env, timeout_s=subject.timeout_s
    )
