"""Arrange a manifest for the report's templates: verdicts, charts, and facts by section."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from hfexport.manifest.model import ArtifactEntry, Manifest, Number, ToleranceEntry, VariantEntry
from hfexport.manifest.report.charts import MAX_BARS, Chart, Series, bars, difference_chart
from hfexport.manifest.report.differences import Comparison, Group, as_float, groups_of
from hfexport.manifest.report.formats import percent, seconds, size
from hfexport.manifest.report.printable import printable
from hfexport.manifest.report.speed import Speed, speed_of
from hfexport.manifest.speed import latency_of
from hfexport.manifest.summary import headline, load_snippet
from hfexport.manifest.variants import how_to_load, variant_rows

__all__ = ["Artifact", "Chart", "Model", "Verdict", "verdict_of", "view"]

_TONES: Final = {"passed": "good", "incomplete": "warn", "not_validated": "warn", "not_run": "warn"}
_RANKS: Final = ("passed", "incomplete", "not_run", "not_validated", "failed", "error")
_LOADABLE: Final = ("passed", "incomplete", "not_validated")


@dataclass(frozen=True)
class Verdict:
    """A verdict: its name in the manifest, words for it, its colour, and its rank from good to bad."""

    name: str
    word: str
    tone: str
    rank: int


@dataclass(frozen=True)
class Differences:
    """Differences of one validation or check, with their picture."""

    title: str
    tolerance: ToleranceEntry | None
    comparisons: Sequence[Comparison]
    svg: Markup
    caption: str


@dataclass(frozen=True)
class Note:
    """A fact about the validation that is neither in a table nor in a picture; `value` is a part of the manifest."""

    title: str
    value: object


@dataclass(frozen=True)
class Artifact:
    """An artifact for the templates; `entry` is its part of the manifest."""

    entry: ArtifactEntry
    verdict: Verdict
    size_bytes: int
    share: float | None
    passed: int
    cells: Mapping[str, str]
    notes: Sequence[Note]
    groups: Sequence[Differences]
    operators: Mapping[str, int]
    operators_chart: Markup | None
    details: Mapping[str, object]
    snippet: str


@dataclass(frozen=True)
class Variant:
    """A variant for the templates; `entry` is its part of the manifest, `cells` its row of `VARIANT_COLUMNS`."""

    entry: VariantEntry
    cells: Sequence[str]
    how_to_load: str


@dataclass(frozen=True)
class Model:
    """One manifest for the templates."""

    manifest: Manifest
    name: str
    verdict: Verdict
    headline: str
    artifacts: Sequence[Artifact]
    columns: Sequence[str]
    variants: Sequence[Variant]
    charts: Sequence[Chart]
    speed: Speed | None
    stage_charts: Sequence[Chart]
    source: Mapping[str, object]
    background: Mapping[str, object]

    @property
    def size_bytes(self) -> int:
        return sum(artifact.size_bytes for artifact in self.artifacts)

    @property
    def difference(self) -> float | None:
        return _largest(artifact.entry["validation"]["max_abs_diff"] for artifact in self.artifacts)

    @property
    def share(self) -> float | None:
        return _largest(artifact.share for artifact in self.artifacts)

    @property
    def duration_s(self) -> float:
        return round(sum(stage["seconds"] for stage in self.manifest["stages"]), 3)


def verdict_of(name: str) -> Verdict:
    """Return the words, colour and rank of a verdict."""
    return Verdict(name, name.replace("_", " "), _TONES.get(name, "bad"), _RANKS.index(name))


def view(manifest: Manifest) -> Model:
    """Arrange a manifest for the templates."""
    manifest = printable(manifest)
    manifest["variants"] = manifest.get("variants", [])
    artifacts = [_artifact(entry, manifest) for entry in manifest["artifacts"]]
    variants = [
        Variant(entry, cells, how_to_load(entry, manifest).replace("`", ""))
        for entry, cells in zip(manifest["variants"], variant_rows(manifest), strict=True)
    ]
    source = manifest["source"]
    failed = manifest["error"] is not None and manifest["verdict"] in _LOADABLE
    return Model(
        manifest=manifest,
        name=str(source["model"] if source is not None else manifest["inputs"].get("model", "unknown model")),
        verdict=verdict_of("error" if failed else manifest["verdict"]),
        headline=headline(manifest),
        artifacts=artifacts,
        columns=list(dict.fromkeys(column for artifact in artifacts for column in artifact.cells)),
        variants=variants,
        charts=_model_charts(manifest),
        speed=speed_of(manifest),
        stage_charts=_stage_charts(manifest),
        source=_without(source or {}, ("model", "hub", "model_type", "files")),
        background={
            "Inputs": manifest["inputs"],
            "Versions": {**manifest["versions"], "hfexport": manifest["producer"]["version"]},
            "Machine": manifest["machine"],
            **({"Isolation": manifest["isolation"]} if manifest.get("isolation") else {}),
        },
    )


def _artifact(entry: ArtifactEntry, manifest: Manifest) -> Artifact:
    validation = entry["validation"]
    operators = entry["details"].get("operators") or {}
    return Artifact(
        entry=entry,
        verdict=verdict_of(validation["verdict"]),
        size_bytes=sum(file["size_bytes"] for file in entry["files"]),
        share=as_float(validation.get("tolerance_share")),
        passed=sum(probe["verdict"] == "passed" for probe in validation["probes"]),
        cells={"latency": latency_of(manifest, entry["format"])} if manifest.get("benchmark") else {},
        notes=_notes(entry),
        groups=[_differences(group, entry) for group in groups_of(entry)],
        operators=operators,
        operators_chart=_operators_chart(entry["path"], operators),
        details=_without(entry["details"], ("operators",)),
        snippet=load_snippet(entry, manifest) if manifest["verdict"] in _LOADABLE else "",
    )


def _notes(entry: ArtifactEntry) -> list[Note]:
    """List facts about the validation that are neither in a table nor in a picture."""
    validation = entry["validation"]
    known = {
        "validated up to": validation.get("validated_up_to"),
        "lengths above which the model computes differently, and which no probe exceeds": validation.get(
            "unasked_thresholds"
        ),
        "outputs of the model that were not compared": validation.get("left_out"),
        "stored tensors": validation.get("weights"),
    }
    return [Note(title, value) for title, value in known.items() if value]


def _differences(group: Group, entry: ArtifactEntry) -> Differences:
    worst = "not known" if group.worst is None else percent(group.worst)
    caption = (
        f"Largest difference relative to its tolerance, by probe and output, on a logarithmic scale; 100 % is the"
        f" tolerance. The largest of all is {worst}."
    )
    svg = difference_chart(f"{entry['path']}: {caption}", group)
    return Differences(group.title, group.tolerance, group.comparisons, svg, caption)


def _operators_chart(path: str, operators: Mapping[str, int]) -> Markup | None:
    if not operators:
        return None
    frequent = sorted(operators.items(), key=lambda item: (-item[1], item[0]))[:MAX_BARS]
    counts = tuple(float(count) for _, count in frequent)
    series = Series("nodes", counts, tuple(str(count) for _, count in frequent))
    said = ", ".join(f"{name} {count}" for name, count in frequent)
    return bars(f"Operators of {path}: {said}", [name for name, _ in frequent], [series])


def _model_charts(manifest: Manifest) -> list[Chart]:
    """Draw the sizes of artifacts and variants, and the similarity of variants."""
    variants = manifest["variants"]
    sized = [(entry["path"], entry["files"]) for entry in manifest["artifacts"]]
    sized += [(_variant_label(entry), entry["files"]) for entry in variants]
    if not sized:
        return []
    sizes = [sum(file["size_bytes"] for file in files) for _, files in sized]
    charts = [_sizes_chart("Size of the artifacts", [label for label, _ in sized], sizes)]
    measured = [(_variant_label(entry), _similarity(entry)) for entry in variants]
    measured = [(label, values) for label, values in measured if None not in values]
    if measured:
        labels = [label for label, _ in measured]
        series = [
            Series(
                name,
                tuple(values[index] for _, values in measured),
                tuple(f"{values[index]:.4f}" for _, values in measured),
            )
            for index, name in enumerate(("mean", "worst"))
        ]
        caption = "Cosine similarity of the outputs of each variant to the model's"
        said = ", ".join(f"{label} mean {values[0]:.4f}, worst {values[1]:.4f}" for label, values in measured)
        charts.append(Chart(bars(f"{caption}: {said}", labels, series), caption))
    return charts


def _variant_label(entry: VariantEntry) -> str:
    return f"{entry['paths'][0]} ({entry['name']})"


def _similarity(entry: VariantEntry) -> tuple[float | None, float | None]:
    """Return the smallest mean and worst cosine similarity over the graphs of a variant."""
    found = []
    for name in ("mean_cosine", "worst_cosine"):
        values = [as_float(measure["value"]) for measure in entry["quality"]["measures"] if measure["name"] == name]
        found.append(min((value for value in values if value is not None and math.isfinite(value)), default=None))
    return found[0], found[1]


def _sizes_chart(caption: str, labels: Sequence[str], sizes: Sequence[int]) -> Chart:
    texts = tuple(size(value) for value in sizes)
    said = ", ".join(f"{label} {text}" for label, text in zip(labels, texts, strict=True))
    series = Series("MB", tuple(value / 1e6 for value in sizes), texts)
    return Chart(bars(f"{caption}: {said}", labels, [series]), f"{caption}, in MB")


def _stage_charts(manifest: Manifest) -> list[Chart]:
    stages = manifest["stages"]
    if not stages:
        return []
    labels = [stage["name"] for stage in stages]
    texts = tuple(seconds(stage["seconds"]) for stage in stages)
    said = ", ".join(f"{label} {text}" for label, text in zip(labels, texts, strict=True))
    times = Series("seconds", tuple(float(stage["seconds"]) for stage in stages), texts)
    return [
        Chart(bars(f"Time of each step: {said}", labels, [times]), "Time of each step, in seconds"),
        _sizes_chart(
            "Peak memory of the process that runs each step", labels, [stage["peak_memory_bytes"] for stage in stages]
        ),
    ]


def _without(entry: Mapping[str, object], names: Sequence[str]) -> dict[str, object]:
    return {name: value for name, value in entry.items() if name not in names}


def _largest(values: Iterable[Number]) -> float | None:
    numbers = [number for value in values if (number := as_float(value)) is not None and not math.isnan(number)]
    return max(numbers, default=None)
