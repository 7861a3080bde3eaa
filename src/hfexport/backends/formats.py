"""Table of artifact formats: what the rest of hfexport knows about a format without importing its back end.

A new format is a package in `hfexport.backends`, a line in this table, and a function in `hfexport.run.formats` that
makes its back end from the inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

__all__ = ["FORMATS", "Format"]


@dataclass(frozen=True)
class Format:
    """Facts about one format.

    Attributes:
        name: value of the input `formats`, and name of the artifacts' folder.
        label: name for users.
        streams_weights: artifacts hold the weights in the dtype of the export, so that their size is known beforehand.
        one_file_each: each graph is one artifact with one file to load.
        runs_on_cpu: artifacts run on any machine, so that their speed can be measured where they are made.
        writable: folders outside the staging folder that the format's tools write to.
    """

    name: str
    label: str
    streams_weights: bool = True
    one_file_each: bool = True
    runs_on_cpu: bool = True
    writable: tuple[str, ...] = ()


FORMATS: Final[Mapping[str, Format]] = MappingProxyType(
    {
        known.name: known
        for known in (
            Format("onnx", "ONNX"),
            Format("torchscript", "TorchScript"),
            Format(
                "neuron",
                "Neuron",
                streams_weights=False,
                one_file_each=False,
                runs_on_cpu=False,
                writable=("/var/tmp",),  # noqa: S108  neuronx-cc keeps its cache there
            ),
        )
    }
)
"""All formats by name, in the order in which `hfexport verify` runs them: those that may not run here come last."""
