"""docs/variants.md shows the limits of the code, and names every variant."""

from __future__ import annotations

from pathlib import Path

from hfexport.backends.variants import VARIANTS
from hfexport.validation.quality.thresholds import LIMITS

TEXT = (Path(__file__).parents[3] / "docs/variants.md").read_text(encoding="utf-8")
REMEDY = "run scripts/write_variants.py"


def test_the_document_shows_the_limits_of_the_code() -> None:
    table = TEXT.split("<!-- limits:start -->")[1].split("<!-- limits:end -->")[0].strip().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]
    assert [[float(cell) for cell in row[1:]] for row in rows] == [
        list(vars(limits).values()) for limits in LIMITS.values()
    ], REMEDY
    named = [name.strip("` ") for row in rows for name in row[0].split(",")]
    assert sorted(named) == sorted(VARIANTS), REMEDY


def test_the_document_describes_every_variant() -> None:
    names = TEXT.split("## Names")[1].split("## Quality")[0]
    assert [name for name in VARIANTS if f"`{name}`" not in names] == []
