"""Parse the Neuron compiler's log: how many operators it compiled, and which it silently left on CPU.

The log lines are those of torch-neuron 1.13.1, as quoted in the issues of aws-neuron/aws-neuron-sdk. A line may appear
twice, once for each handler of its logger. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from hfexport.backends.neuron.worker import PART_MARK

__all__ = ["CompileLog", "read_log"]

_COUNTS: Final = re.compile(r"Number of arithmetic operators \(post-compilation\) before = (\d+), compiled = (\d+)")
_PARTITIONS: Final = re.compile(r"The neuron partitioner created (\d+) sub-graphs")
_FALLBACK: Final = re.compile(r"torch\.neuron\.trace failed on (\S+?);? falling back to native python")
_LEFT: Final = re.compile(r" => (\S+): (\d+) \[(not supported|supported)\]")
_CPU_TRACE: Final = "No operator is placed on Neuron runtime"


@dataclass(frozen=True)
class CompileLog:
    """Statistics that the compiler's log gives for one part.

    Attributes:
        operators: arithmetic operators before compiling; `None` if not logged.
        compiled: how many of them were compiled; `None` if not logged.
        partitions: number of subgraphs that the partitioner created; `None` if not logged.
        fallbacks: names of subgraphs that failed to compile and run on CPU instead.
        left_on_cpu: counts of operators that were not compiled, by kind.
        cpu_trace: whether no operator at all was placed on Neuron.
    """

    operators: int | None = None
    compiled: int | None = None
    partitions: int | None = None
    fallbacks: tuple[str, ...] = ()
    left_on_cpu: Mapping[str, int] | None = None
    cpu_trace: bool = False

    @property
    def share(self) -> float | None:
        """Share of arithmetic operators that were compiled, by the compiler's count."""
        if self.operators is None or self.compiled is None:
            return None
        return self.compiled / self.operators if self.operators else 0.0


def read_log(lines: Iterable[str]) -> dict[str, CompileLog]:
    """Parse the log into one `CompileLog` for each part, by the part's name."""
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    for line in lines:
        if PART_MARK in line:
            current = sections.setdefault(line.split(PART_MARK, 1)[1].strip(), [])
        else:
            current.append(line)
    return {name: _read_section(section) for name, section in sections.items()}


def _read_section(lines: Iterable[str]) -> CompileLog:
    operators = compiled = partitions = None
    fallbacks: dict[str, None] = {}
    left: dict[str, int] = {}
    cpu_trace = False
    for line in lines:
        if match := _COUNTS.search(line):
            operators, compiled = int(match[1]), int(match[2])
        elif match := _PARTITIONS.search(line):
            partitions = int(match[1])
        elif match := _FALLBACK.search(line):
            fallbacks[match[1]] = None
        elif match := _LEFT.search(line):
            left[match[1]] = int(match[2])
        cpu_trace = cpu_trace or _CPU_TRACE in line
    return CompileLog(operators, compiled, partitions, tuple(fallbacks), left, cpu_trace)
