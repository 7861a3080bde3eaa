"""The Neuron artifact and its parts, with the compile statistics that validation checks. Does not import torch."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hfexport.backends.base import Artifact
from hfexport.backends.neuron.compile_log import CompileLog
from hfexport.backends.neuron.options import NeuronRun
from hfexport.backends.neuron.plan import PartPlan

__all__ = ["NeuronArtifact", "NeuronPart", "count_subgraphs"]

_CALL: Final = re.compile(rb"\bops\.neuron\.forward\w*\(")
"""Matches the call of a compiled subgraph in the code of a TorchScript archive."""


@dataclass(frozen=True)
class NeuronPart:
    """One compiled graph: the whole model, or its encoder or decoder.

    Attributes:
        plan: planned inputs, outputs and sizes.
        path: file of the compiled graph.
        trace: the same module traced but not compiled, for validation; not part of the artifact.
        subgraphs: number of compiled subgraphs in the graph that the SDK returned.
        archived_subgraphs: number of compiled subgraphs that the saved file calls.
        operators: counts of torch operators in the trace, by kind.
        cpu_operators: counts of torch operators that remain in the compiled graph and run on CPU, by kind.
        log: statistics from the compiler's log about this part.
        separate_weights: whether weights are stored beside the compiled graph, as they are if larger than 1.9 GB.
    """

    plan: PartPlan
    path: Path
    trace: Path
    subgraphs: int
    archived_subgraphs: int
    operators: Mapping[str, int]
    cpu_operators: Mapping[str, int]
    log: CompileLog
    separate_weights: bool = False

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def compiled_share(self) -> float:
        """Share of operators that were compiled: the lower of the graphs' and the compiler's counts."""
        total, left = sum(self.operators.values()), sum(self.cpu_operators.values())
        by_graph = max(0.0, 1 - left / total) if total and self.subgraphs else 0.0
        return by_graph if self.log.share is None else min(by_graph, self.log.share)

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON values for the manifest."""
        return {
            "name": self.name,
            "inputs": [spec.name for spec in self.plan.config.inputs],
            "outputs": [spec.name for spec in self.plan.config.outputs],
            "fixed_sizes": self.plan.held,
            "pad_values": dict(self.plan.description({}).pad_values),
            "subgraphs": self.subgraphs,
            "compiled_share": round(self.compiled_share, 4),
            "operators": sum(self.operators.values()),
            "cpu_operators": dict(self.cpu_operators),
            "fallbacks": list(self.log.fallbacks),
            "separate_weights": self.separate_weights,
        }


@dataclass(frozen=True)
class NeuronArtifact(Artifact):
    """An artifact of format `neuron`.

    Attributes:
        parts: compiled graphs.
        run: options of the compilation, and the folder of the files exchanged with the worker.
        package: runtime package that validation uses for text generation.
        reference: the model's outputs for the probes in the SDK's interpreter, as `{part}/{n}/{output}`.
    """

    parts: tuple[NeuronPart, ...] = ()
    run: NeuronRun | None = None
    package: Path = Path()
    reference: Path = Path()


def count_subgraphs(path: Path) -> int:
    """Count the calls of compiled subgraphs in the code of a TorchScript archive.

    The SDK's own loader needs a Neuron device, so the source text in the zip archive is searched instead.

    Raises:
        zipfile.BadZipFile: the file is not a zip archive.
    """
    with zipfile.ZipFile(path) as archive:
        sources = [name for name in archive.namelist() if "/code/" in name and name.endswith(".py")]
        return sum(len(_CALL.findall(archive.read(name))) for name in sources)
