"""Table of artifact formats: facts about each format that are known without importing its back end.

A new format is a package in `hfexport.backends`, a line in this table, and a function in `hfexport.run.formats` that
makes its back end from the inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

__all__ = ["FORMATS", "Format", "Limits", "Variant"]

Limits = Literal["exact", "half", "integers", "blocks"]


@dataclass(frozen=True)
class Format:
    """Facts about one format.

    Attributes:
        name: value of the input `formats`, and name of the artifacts' folder.
        label: name for users.
        streams_weights: artifacts hold the weights in the dtype of the export, so that their size is known beforehand.
        one_file_each: each graph is one artifact with one file to load.
        runs_on_cpu: artifacts run on any machine, so that their speed can be measured where they are made.
        has_templates: its back end is a `hfexport.backends.base.TemplateBackend`.
        writable: folders outside the staging folder that the format's tools write to.
    """

    name: str
    label: str
    streams_weights: bool = True
    one_file_each: bool = True
    runs_on_cpu: bool = True
    has_templates: bool = True
    writable: tuple[str, ...] = ()


@dataclass(frozen=True)
class Variant:
    """Facts about a variant: a further file of a graph, equal to the model only within a measured loss.

    Attributes:
        name: name in the input `variants`.
        format: name of its format.
        limits: limits of its quality, a key of `validation.quality.thresholds.LIMITS`.
        base: dtype of the graph that it is made from; empty for that of the plain file.
        size_share: size of the file relative to the float32 file, above which the report says that it is too large.
        keeps_weights: each weight of the plain file is in it, possibly rounded, and is compared with it.
        io_in_fp32: whether inputs and outputs are float32 even where the plain file's are not.
        suffix: end of the file's name, after an underscore; the name itself if empty.
    """

    name: str
    format: str
    limits: Limits
    base: Literal["fp32", "fp16", ""] = "fp32"
    size_share: float = 1.0
    keeps_weights: bool = True
    io_in_fp32: bool = True
    suffix: str = ""

    @property
    def file_suffix(self) -> str:
        """Return the end of the file's name before the extension: `_int8`."""
        return f"_{self.suffix or self.name}"


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
                has_templates=False,
                writable=("/var/tmp",),  # noqa: S108  neuronx-cc keeps its cache there
            ),
        )
    }
)
"""All formats by name, in the order in which `hfexport verify` runs them: those that may not run here come last."""
