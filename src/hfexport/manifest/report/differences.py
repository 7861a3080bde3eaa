"""Differences of an artifact from the model, relative to what was allowed, by probe and output."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from hfexport.manifest.model import ArtifactEntry, Number, OutputEntry, ProbeEntry, ToleranceEntry

__all__ = ["Comparison", "Group", "as_float", "groups_of"]

_WHOLE_NUMBERS: Final = ("int", "uint", "bool")


@dataclass(frozen=True)
class Comparison:
    """One output of one probe.

    Attributes:
        probe: the probe.
        output: the output; `None` if the probe failed as a whole.
        share: largest difference relative to the allowed difference; `None` if unknown.
    """

    probe: ProbeEntry
    output: OutputEntry | None
    share: float | None

    @property
    def failed(self) -> bool:
        return bool(self.probe["problem"] if self.output is None else self.output["problem"])


@dataclass(frozen=True)
class Group:
    """Comparisons that share a tolerance: those of an artifact's validation, or of one of its further checks.

    Attributes:
        title: name of the check; empty for the validation itself.
        tolerance: allowed difference of a value.
        comparisons: every output of every probe.
    """

    title: str
    tolerance: ToleranceEntry | None
    comparisons: tuple[Comparison, ...]

    @property
    def worst(self) -> float | None:
        """Return the largest share; `None` if there is none."""
        return max((part.share for part in self.comparisons if part.share is not None), default=None)


def groups_of(artifact: ArtifactEntry) -> tuple[Group, ...]:
    """Return the comparisons of an artifact's validation, and of each further check that compared something."""
    validation = artifact["validation"]
    parts = [("", validation["tolerance"], validation["probes"])]
    parts += [(check["name"], check["tolerance"], check["probes"]) for check in validation["checks"]]
    groups = [Group(title, tolerance, tuple(_comparisons(probes, tolerance))) for title, tolerance, probes in parts]
    return tuple(group for group in groups if group.comparisons)


def _comparisons(probes: Iterable[ProbeEntry], tolerance: ToleranceEntry | None) -> Iterator[Comparison]:
    for probe in probes:
        if not probe["outputs"]:
            yield Comparison(probe, None, None)
        for output in probe["outputs"]:
            yield Comparison(probe, output, _share(output, tolerance))


def _share(output: OutputEntry, tolerance: ToleranceEntry | None) -> float | None:
    """Return the largest difference relative to its tolerance; computed from the worst element if not recorded."""
    if "tolerance_share" in output:
        return as_float(output["tolerance_share"])
    if output["distances"] is not None:
        return _ratio(as_float(output["distances"]["artifact"]), as_float(output["distances"]["allowed"]))
    if output["worst"] is None:
        return 0.0 if output["max_abs"] == 0 else None
    artifact, reference = as_float(output["worst"]["artifact"]), as_float(output["worst"]["reference"])
    if artifact is None or reference is None:
        return None
    if output["dtype"].startswith(_WHOLE_NUMBERS) or tolerance is None:
        return 0.0 if artifact == reference else None if tolerance is None else math.inf
    return _ratio(abs(artifact - reference), tolerance["atol"] + tolerance["rtol"] * abs(reference))


def _ratio(difference: float | None, allowed: float | None) -> float | None:
    if difference is None or allowed is None or math.isnan(difference) or math.isnan(allowed):
        return None
    if allowed == 0:
        return 0.0 if difference == 0 else math.inf
    return difference / allowed


def as_float(value: Number) -> float | None:
    """Return a number of the manifest, in which `inf` and `nan` are texts; `None` if it is none."""
    try:
        return None if value is None else float(value)
    except ValueError:
        return None
