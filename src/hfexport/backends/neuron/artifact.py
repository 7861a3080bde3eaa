"""What the Neuron back end made, with the evidence by which validation judges it. No torch here."""

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
"""A compiled subgraph in the code of a TorchScript archive."""


@dataclass(frozen=True)
class NeuronPart:
    """One compiled graph: the whole model, or its encoder or decoder.

    Attributes:
        plan: what it should be.
        path: the compiled artifact.
        trace: the same module traced and not compiled, for validation; not part of the artifact.
        subgraphs: compiled subgraphs in the graph that the SDK gave.
        archived_subgraphs: compiled subgraphs that the saved file calls.
        operators: torch operators of the trace by kind.
        cpu_operators: torch operators that the compiled graph still has, which run on CPU, by kind.
        log: what the compiler says.
        separate_weights: the weights lie beside the compiled graph, since they pass 1.9 GB.
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
        """The share of operators that were compiled: the smaller of what the graphs show and what the compiler says."""
        total, left = sum(self.operators.values()), sum(self.cpu_operators.values())
        by_graph = max(0.0, 1 - left / total) if total and self.subgraphs else 0.0
        return by_graph if self.log.share is None else min(by_graph, self.log.share)

    def to_dict(self) -> dict[str, Any]:
        """For the manifest."""
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
        parts: its compiled graphs.
        run: how they were made, and where what was exchanged lies.
        package: the run time by which validation has it write text.
        reference: what the model answered to the run's probes in the SDK's interpreter, as `{part}/{n}/{output}`.
    """

    parts: tuple[NeuronPart, ...] = ()
    run: NeuronRun | None = None
    package: Path = Path()
    reference: Path = Path()


def count_subgraphs(path: Path) -> int:
    """How many calls of compiled subgraphs the code of a TorchScript archive has.

    The SDK's own loader needs a Neuron device, so the file is looked at as what it is, a zip archive of source text.

    Raises:
        zipfile.BadZipFile: it is none.
    """
    with zipfile.ZipFile(path) as archive:
        sources = [name for name in archive.namelist() if "/code/" in name and name.endswith(".py")]
        return sum(len(_CALL.findall(archive.read(name))) for name in sources)
