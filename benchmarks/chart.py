"""Chart of the comparison as SVG, drawn by pygal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pygal
from pygal.style import Style

from cases import CASES
from comparison import Entry
from peers import CONTENDERS, REFERENCE
from tables import ratio

__all__ = ["draw"]


def draw(comparison: Mapping[str, Mapping[str, Entry]], path: Path) -> None:
    """Write bars of wall time as a ratio to the reference: one group a case, one bar an exporter, none where it failed."""
    cases = [case for case in CASES if case.name in comparison]
    chart = pygal.Bar(
        title=f"Wall time, {REFERENCE} = 1 (less is better)",
        width=900,
        height=420,
        js=(),
        legend_at_bottom=True,
        legend_at_bottom_columns=len(CONTENDERS),
        print_values=True,
        print_values_position="top",
        formatter=lambda value: "" if value is None else f"{value:.2f}",
        truncate_legend=-1,
        no_prefix=True,
        style=Style(background="white", plot_background="white", title_font_size=16, value_font_size=11),
    )
    chart.x_labels = [case.name for case in cases]
    for contender in CONTENDERS:
        chart.add(contender.name, [ratio(comparison[case.name], contender.name, REFERENCE, "wall_s") for case in cases])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(chart.render(is_unicode=True) + "\n", encoding="utf-8")
