"""Copy the checkpoint's other files into the output, and write the files of the input `target`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hfexport.backends.onnx.targets import TARGETS, Exported
from hfexport.backends.onnx.variants.names import FORMAT
from hfexport.checkpoint import copy_along

if TYPE_CHECKING:
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
    """
    written = dict.fromkeys(copy_along(exporter.checkpoint.along, exporter.ready))
    plain = [(artifact, config) for artifact, config, _ in results if artifact.format == FORMAT]
    files = [path for artifact, _ in plain for path in artifact.files]
    further = [variant for variant in variants if variant.artifacts[0].format == FORMAT]
    files += [path for variant in further for artifact in variant.artifacts for path in artifact.files]
    for name in exporter.inputs.target or ():
        exported = Exported(
            folder=exporter.ready,
            graphs=tuple(config for _, config in plain),
            files=files,
            variants=[variant.name for variant in further],
        )
        written |= dict.fromkeys(TARGETS[name].write(exported))
    return list(written)
