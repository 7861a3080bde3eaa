"""Measured speed for people: tables, ratios, and the entry of the manifest."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hfexport.manifest.model import Manifest
from hfexport.manifest.speed_model import BenchmarkEntry, ContenderEntry, TimingEntry

if TYPE_CHECKING:
    from hfexport.validation.speed import Result, Speed

__all__ = [
    "SpeedTable",
    "benchmark_entry",
    "contender_of",
    "described",
    "latency_of",
    "medians",
    "no_faster",
    "ratio",
    "skipped",
    "speed_tables",
]


@dataclass(frozen=True)
class SpeedTable:
    """Latency of one graph: a row for each contender, a column for each call.

    Attributes:
        graph: name of the graph.
        columns: headings.
        rows: cells as text.
    """

    graph: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def lines(self) -> list[str]:
        """Return the table as text with aligned columns."""
        cells = (self.columns, *self.rows)
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def benchmark_entry(speed: Speed, folder: Path) -> BenchmarkEntry:
    """Describe a measurement; paths are relative to `folder`."""
    return {
        "threads": speed.threads,
        "budget_s": speed.budget_s,
        "seconds": round(speed.seconds, 3),
        "attention": speed.attention,
        "calls": [
            {"graph": call.graph, "name": call.name, "kind": call.kind, "sizes": dict(call.probe.sizes)}
            for call in speed.calls
        ],
        "contenders": [_contender_entry(result, speed, folder) for result in speed.results],
    }


def _contender_entry(result: Result, speed: Speed, folder: Path) -> ContenderEntry:
    contender = result.contender
    return {
        "name": contender.name,
        "format": contender.format or None,
        "variant": contender.variant or None,
        "paths": [artifact.path.relative_to(folder).as_posix() for artifact, _ in contender.files],
        "size_bytes": contender.size_bytes,
        "rounds": result.rounds,
        "reason": result.reason,
        "timings": [
            _timing(number, result, speed)
            for number in range(len(speed.calls))
            if number in (result.ms | result.reasons)
        ],
    }


def _timing(number: int, result: Result, speed: Speed) -> TimingEntry:
    values = result.ms.get(number)
    if not values:
        return {"call": number, "reason": result.reasons[number]}
    median = statistics.median(values)
    tenths = statistics.quantiles(values, n=10, method="inclusive") if len(values) > 1 else [median] * 9
    entry: TimingEntry = {
        "call": number,
        "median_ms": round(median, 4),
        "p10_ms": round(tenths[0], 4),
        "p90_ms": round(tenths[-1], 4),
        "repetitions": len(values),
    }
    if (tokens := speed.calls[number].tokens) and median > 0:
        entry["tokens_per_s"] = round(1000 * tokens / median, 2)
    return entry


def medians(contender: ContenderEntry) -> dict[int, float]:
    """Return the median in milliseconds by number of the call, for the calls that were timed."""
    return {timing["call"]: timing["median_ms"] for timing in contender["timings"] if timing.get("median_ms")}


def ratio(contender: ContenderEntry, base: ContenderEntry) -> float | None:
    """Return the latency relative to `base`: the geometric mean over the calls that both ran; `None` if there is none."""
    own, other = medians(contender), medians(base)
    shared = [math.log(own[call] / other[call]) for call in own if call in other]
    return math.exp(statistics.fmean(shared)) if shared else None


def contender_of(
    benchmark: BenchmarkEntry, format_name: str | None, variant: str | None = None
) -> ContenderEntry | None:
    """Return the contender of a format and variant; of the model itself for no format."""
    return next(
        (one for one in benchmark["contenders"] if (one["format"], one["variant"]) == (format_name, variant)), None
    )


def latency_of(manifest: Manifest, format_name: str, variant: str | None = None) -> str:
    """Return the latency relative to the plain files, or of plain files to eager PyTorch; `-` if it is not known."""
    benchmark = manifest.get("benchmark")
    if not benchmark:
        return "-"
    own = contender_of(benchmark, format_name, variant)
    base = contender_of(benchmark, format_name if variant else None)
    found = None if own is None or base is None else ratio(own, base)
    return "-" if found is None else f"{_share(found)} of {'plain' if variant else 'eager'}"


def no_faster(manifest: Manifest) -> dict[int, str]:
    """Return a remark for each variant that is no faster than the plain files, by its position in the manifest."""
    benchmark = manifest.get("benchmark")
    remarks = {}
    for number, entry in enumerate(manifest.get("variants", []) if benchmark else []):
        assert benchmark is not None
        own = contender_of(benchmark, entry["format"], entry["name"])
        plain = contender_of(benchmark, entry["format"])
        found = None if own is None or plain is None else ratio(own, plain)
        if found is not None and found >= 1:
            remarks[number] = f"it is no faster here: its latency is {found:.2f} of the plain files'"
    return remarks


def speed_tables(benchmark: BenchmarkEntry | None) -> list[SpeedTable]:
    """Return a table of medians for each graph, in milliseconds, with tokens a second for steps of a decoder."""
    if benchmark is None:
        return []
    eager = contender_of(benchmark, None)
    tables = []
    for graph in dict.fromkeys(call["graph"] for call in benchmark["calls"]):
        numbers = [number for number, call in enumerate(benchmark["calls"]) if call["graph"] == graph]
        contenders = [one for one in benchmark["contenders"] if any(t["call"] in numbers for t in one["timings"])]
        if not contenders:
            continue
        columns = (graph, *(benchmark["calls"][number]["name"] for number in numbers), "of eager")
        rows = tuple(
            (
                one["name"],
                *(_cell(one, number, decodes=benchmark["calls"][number]["kind"] == "decode") for number in numbers),
                _relative(one, eager, numbers),
            )
            for one in contenders
        )
        tables.append(SpeedTable(graph, columns, rows))
    return tables


def _cell(contender: ContenderEntry, number: int, *, decodes: bool) -> str:
    for timing in contender["timings"]:
        if timing["call"] == number and "median_ms" in timing:
            tokens = timing.get("tokens_per_s") if decodes else None
            return f"{_figure(timing['median_ms'])} ms" + (f", {_figure(tokens)} tokens/s" if tokens else "")
    return "-"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _relative(contender: ContenderEntry, eager: ContenderEntry | None, numbers: Sequence[int]) -> str:
    def part(one: ContenderEntry) -> ContenderEntry:
        return {**one, "timings": [timing for timing in one["timings"] if timing["call"] in numbers]}

    found = None if eager is None else ratio(part(contender), part(eager))
    return "-" if found is None else _share(found)


def _share(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def described(benchmark: BenchmarkEntry) -> str:
    """Describe the measurement in two sentences."""
    threads = benchmark["threads"]
    rounds = max((one["rounds"] for one in benchmark["contenders"]), default=0)
    return (
        f"Latency: medians over {rounds} {'round' if rounds == 1 else 'rounds'} of"
        f" new processes with {threads} {'thread' if threads == 1 else 'threads'} each. Eager PyTorch is the model with"
        f" {benchmark['attention'] or 'no'} attention; the last column is the geometric mean relative to it."
    )


def skipped(benchmark: BenchmarkEntry) -> list[str]:
    """Return one line for each contender or call that was not measured, with the reason."""
    lines = []
    for one in benchmark["contenders"]:
        if one["reason"]:
            lines.append(f"{one['name']}: {one['reason']}")
            continue
        reasons: dict[str, list[str]] = {}
        for timing in one["timings"]:
            if reason := timing.get("reason"):
                call = benchmark["calls"][timing["call"]]
                reasons.setdefault(reason, []).append(f"{call['graph']}, {call['name']}")
        lines += [f"{one['name']} at {'; '.join(calls)}: {reason}" for reason, calls in reasons.items()]
    return lines
