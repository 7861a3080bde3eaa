"""Measured speed for the report's templates: charts and a table of every figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hfexport.manifest.model import Manifest
from hfexport.manifest.report.charts import Chart, Point, Series, bars, scatter
from hfexport.manifest.report.formats import percent, size
from hfexport.manifest.speed import contender_of, described, medians, ratio, skipped
from hfexport.manifest.speed_model import BenchmarkEntry

__all__ = ["Speed", "speed_of"]


@dataclass(frozen=True)
class Speed:
    """Measured speed for the templates; `rows` has the call and the timing of each contender."""

    entry: BenchmarkEntry
    description: str
    charts: Sequence[Chart]
    rows: Sequence[Mapping[str, Any]]
    skipped: Sequence[str]


def speed_of(manifest: Manifest) -> Speed | None:
    """Arrange the measured speed of a manifest; `None` if it has none."""
    benchmark = manifest.get("benchmark")
    if not benchmark:
        return None
    rows = [
        {"contender": one, "call": benchmark["calls"][timing["call"]], "timing": timing}
        for one in benchmark["contenders"]
        for timing in one["timings"]
    ]
    charts = [*_latency_charts(benchmark), *_size_chart(benchmark)]
    return Speed(benchmark, described(benchmark), charts, rows, skipped(benchmark))


def _latency_charts(benchmark: BenchmarkEntry) -> list[Chart]:
    """Draw the medians of each graph: a group of bars for each call, a bar for each contender."""
    charts = []
    for graph in dict.fromkeys(call["graph"] for call in benchmark["calls"]):
        numbers = [number for number, call in enumerate(benchmark["calls"]) if call["graph"] == graph]
        labels = [benchmark["calls"][number]["name"] for number in numbers]
        series, said = [], []
        for one in benchmark["contenders"]:
            found = medians(one)
            values = tuple(found.get(number) for number in numbers)
            if any(value is not None for value in values):
                texts = tuple("" if value is None else f"{value:.3g} ms" for value in values)
                series.append(Series(one["name"], values, texts))
                said.append(
                    f"{one['name']} "
                    + ", ".join(f"{label} {text}" for label, text in zip(labels, texts, strict=True) if text)
                )
        if series:
            caption = f"Latency of {graph}, medians in ms"
            charts.append(Chart(bars(f"{caption}: {'; '.join(said)}", labels, series), caption))
    return charts


def _size_chart(benchmark: BenchmarkEntry) -> list[Chart]:
    """Draw a point for each contender: its size, and its latency relative to the model's in eager PyTorch."""
    eager = contender_of(benchmark, None)
    if eager is None:
        return []
    points = []
    for one in benchmark["contenders"]:
        found = ratio(one, eager)
        if found is not None:
            text = f"{size(one['size_bytes'])}, {percent(found)} of eager PyTorch"
            points.append(Point(one["name"], one["size_bytes"] / 1e6, 100 * found, text))
    if len(points) < 2:
        return []
    caption = "Size in MB (across) and latency in percent of eager PyTorch (up)"
    said = "; ".join(f"{point.name} {point.text}" for point in points)
    return [Chart(scatter(f"{caption}: {said}", points), caption)]
