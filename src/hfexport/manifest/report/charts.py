"""Static charts as inline SVG, drawn by pygal. Colours come from the page's style sheet; the SVG holds no script."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from hfexport.manifest.report.differences import Group
from hfexport.manifest.report.formats import compact, percent

__all__ = ["Chart", "Point", "Series", "bars", "difference_chart", "scatter"]

MAX_BARS: Final = 24
MAX_LABEL: Final = 44
MAX_LEGEND: Final = 30
_WIDTH: Final = 760
COLORS: Final = 6
"""Number of colours that the style sheet has for series."""
_COLOR: Final = re.compile(r"\bcolor-(\d+)\b")
_ROW_HEIGHT: Final = 24
_LOWEST: Final = -6
"""Power of ten at which the axis of differences starts; smaller differences, and none, are drawn there."""
_HIGHEST: Final = 3


@dataclass(frozen=True)
class Chart:
    """A picture, and the text below it."""

    svg: Markup
    caption: str


@dataclass(frozen=True)
class Point:
    """A point of a chart, with its name and its position in words."""

    name: str
    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Series:
    """Values of a chart under one name.

    Attributes:
        name: name in the legend.
        values: one value for each label; `None` if there is none.
        texts: how each value is written.
    """

    name: str
    values: tuple[float | None, ...]
    texts: tuple[str, ...]


def bars(title: str, labels: Sequence[str], series: Sequence[Series]) -> Markup:
    """Draw horizontal bars, one group for each label, in the order of the labels from top to bottom.

    Args:
        title: text that says what the picture shows, for readers who do not see it.
        labels: names of the groups; at most `MAX_BARS`.
        series: values, by name.
    """
    import pygal

    chart = pygal.HorizontalBar(
        **_options(len(labels) * len(series), legend=len(series) > 1), print_values=True, print_values_position="top"
    )
    chart.x_labels = [_short(label) for label in reversed(labels)]
    for part in series:
        points = [
            None
            if value is None or not math.isfinite(value)
            else {"value": value, "label": label, "formatter": _says(text)}
            for value, text, label in zip(part.values, part.texts, labels, strict=True)
        ]
        chart.add(_short(part.name, MAX_LEGEND), points[::-1])
    chart.show_x_labels = True
    chart.value_formatter = compact
    return _inline(chart, title)


def scatter(title: str, points: Sequence[Point]) -> Markup:
    """Draw points with numbers; the legend names them.

    Args:
        title: text that says what the picture shows, for readers who do not see it.
        points: points with finite positions.
    """
    import pygal

    top, right = (1.15 * max(values, default=1.0) for values in zip(*((one.y, one.x) for one in points), strict=True))
    chart = pygal.XY(
        **{**_options(9, legend=True), "show_y_guides": True},
        stroke=False,
        dots_size=5,
        print_labels=True,
        range=(0, top or 1),
        xrange=(0, right or 1),
    )
    for number, point in enumerate(points, start=1):
        value = {"value": (point.x, point.y), "label": str(number), "formatter": _says(point.text)}
        chart.add(_short(f"{number} {point.name}", MAX_LEGEND), [value])
    chart.value_formatter = chart.x_value_formatter = compact
    return _inline(chart, title)


def difference_chart(title: str, group: Group) -> Markup:
    """Draw a row for each probe with a mark for each output: its largest difference relative to the allowed one.

    The axis is logarithmic, and 100 % is the tolerance. Outputs without a difference are drawn at the axis' start.
    """
    import pygal

    probes: dict[str, list[tuple[str, float | None]]] = {}
    for part in group.comparisons:
        name = part.probe["problem"] if part.output is None else part.output["name"]
        probes.setdefault(part.probe["name"], []).append((name, part.share))
    labels = list(probes)
    outputs = list(dict.fromkeys(name for parts in probes.values() for name, _ in parts))
    worst = max((part.share for part in group.comparisons if part.share is not None), default=1.0)
    highest = 1 if worst <= 10 else min(math.ceil(math.log10(worst)), _HIGHEST) if math.isfinite(worst) else _HIGHEST
    chart = pygal.HorizontalLine(
        **_options(len(labels), legend=1 < len(outputs) <= COLORS), stroke=False, dots_size=4, range=(_LOWEST, highest)
    )
    chart.x_labels = [_short(label) for label in labels]
    chart.y_labels = [
        {"value": power, "label": _power(power) if power % 2 == 0 or power == highest else ""}
        for power in range(_LOWEST, highest + 1, 1 if highest < 3 else 2)
    ]
    for output in outputs:
        points = [_point(output, dict(probes[label]).get(output), highest) for label in labels]
        chart.add(output, points)
    # A line through every row, at 100 %; the style sheet marks it as the tolerance.
    chart.add(None, [0.0] * len(labels), stroke=True, show_dots=len(labels) == 1)
    return _inline(chart, title, limit=len(outputs))


def _point(output: str, share: float | None, highest: int) -> dict[str, Any] | None:
    if share is None:
        return None
    power = _LOWEST if share <= 0 else highest if math.isinf(share) else math.log10(share)
    return {
        "value": min(max(power, _LOWEST), highest),
        "label": output,
        "formatter": _says(percent(share)),
    }


def _power(power: int) -> str:
    return f"{'≤ ' if power == _LOWEST else ''}{percent(10.0**power)}"


def _says(text: str) -> Any:
    return lambda *_: text


def _short(label: str, longest: int = MAX_LABEL) -> str:
    return label if len(label) <= longest else f"{label[: longest - 1]}…"


def _options(rows: int, *, legend: bool) -> dict[str, Any]:
    from pygal.style import Style

    return {
        "width": _WIDTH,
        "height": 60 + _ROW_HEIGHT * max(rows, 1) + (60 if legend else 0),
        "margin": 8,
        "margin_right": 60,
        "margin_bottom": 40 if legend else 8,
        "style": Style(label_font_size=13, major_label_font_size=13, value_font_size=13, legend_font_size=13),
        "css": (),
        "js": (),
        "disable_xml_declaration": True,
        "show_legend": legend,
        "legend_at_bottom": True,
        "legend_at_bottom_columns": 3,
        "truncate_legend": MAX_LEGEND,
        "truncate_label": -1,
        "show_y_guides": False,
        "show_x_guides": True,
    }


def _inline(chart: Any, title: str, limit: int | None = None) -> Markup:
    """Return the chart's SVG as one picture with a text, without pygal's script, style and comments.

    Args:
        chart: chart of pygal.
        title: text of the picture.
        limit: index of the series that shows a limit.
    """
    from xml.etree import ElementTree as ET

    root = chart.render_tree()
    _strip(root, limit)
    root.attrib.update({"role": "img", "aria-label": title, "class": "chart"})
    root.attrib.pop("id", None)
    return Markup(ET.tostring(root, encoding="unicode"))  # noqa: S704  escaped by ElementTree


def _strip(element: Any, limit: int | None) -> None:
    for child in list(element):
        if not isinstance(child.tag, str) or child.tag.rpartition("}")[2] in ("script", "style", "defs"):
            element.remove(child)
            continue
        child.attrib.pop("id", None)
        child.set("class", _COLOR.sub(lambda found: _color(int(found[1]), limit), child.get("class", "")))
        _strip(child, limit)


def _color(index: int, limit: int | None) -> str:
    return "limit" if index == limit else f"color-{index % COLORS}"
