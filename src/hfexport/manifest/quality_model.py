"""Measured quality of a variant as typed data; see `hfexport.manifest.model`."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from msgspec import Meta

from hfexport.manifest.scalars import Count, Number

__all__ = ["MeasureEntry", "QualityEntry"]


class MeasureEntry(TypedDict):
    """One measure of the quality of a graph; a limit is null if there is none."""

    graph: str
    name: str
    value: Number
    at_least: Number
    at_most: Number
    verdict: Literal["passed", "failed"]


class QualityEntry(TypedDict):
    """Measured quality of a variant."""

    verdict: Literal["passed", "failed", "not_run"]
    reason: str
    data: Annotated[str, Meta(description="The texts on which it was measured, or `probes`.")]
    samples: Count
    measures: list[MeasureEntry]
