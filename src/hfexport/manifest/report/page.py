"""Write manifests as one page of HTML, from the templates beside this module."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hfexport import __version__
from hfexport.manifest.model import Manifest
from hfexport.manifest.report import formats
from hfexport.manifest.report.view import Model, Verdict, verdict_of, view
from hfexport.manifest.variants import VARIANT_COLUMNS

__all__ = ["REPORT_PAGE", "report_page", "write_report_page"]

REPORT_PAGE: Final = "report.html"
_TEMPLATES: Final = Path(__file__).parent / "templates"


def report_page(manifests: Sequence[Manifest], title: str | None = None) -> str:
    """Write manifests as one HTML page that loads nothing and is readable without scripts.

    Args:
        manifests: manifests of finished or failed exports. For more than one, the page begins with a table of models.
        title: heading of the page.

    Returns:
        The page; text from manifests is escaped, and unprintable characters are shown as escapes.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    models = [view(manifest) for manifest in manifests]
    environment = Environment(
        autoescape=True, loader=FileSystemLoader(_TEMPLATES), undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "compact": formats.compact,
        "exact": _exact,
        "percent": formats.percent,
        "seconds": formats.seconds,
        "size": formats.size,
        "verdict": _verdict_of_check,
    }
    script = (_TEMPLATES / "script.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html").render(
        models=models,
        variant_columns=VARIANT_COLUMNS,
        title=title or _title(models),
        headlines=_counts(models),
        worst=max((model.verdict for model in models), key=lambda verdict: verdict.rank, default=verdict_of("error")),
        style=Markup((_TEMPLATES / "style.css").read_text(encoding="utf-8")),  # noqa: S704  a file of ours
        script=Markup(script),  # noqa: S704  likewise
        script_hash=f"sha256-{digest}",
        version=__version__,
    )


def write_report_page(manifests: Sequence[Manifest], path: Path, title: str | None = None) -> Path:
    """Write `report_page` to a file, atomically."""
    staged = path.with_name(f".{path.name}.part")
    staged.write_text(report_page(manifests, title), encoding="utf-8")
    os.replace(staged, path)
    return path


def _exact(value: float | str) -> str:
    """Return a number as the manifest has it; `inf` and `nan` are texts there."""
    return value if isinstance(value, str) else json.dumps(value)


def _verdict_of_check(check: Mapping[str, Any]) -> Verdict:
    return verdict_of(check["verdict"])


def _title(models: Sequence[Model]) -> str:
    return f"Export of {models[0].name}" if len(models) == 1 else f"Export of {len(models)} models"


def _counts(models: Sequence[Model]) -> list[dict[str, Any]]:
    """Return the number of models of each verdict, the worst verdict first."""
    found: dict[str, list[Verdict]] = {}
    for model in models:
        found.setdefault(model.verdict.name, []).append(model.verdict)
    ordered = sorted(found.values(), key=lambda verdicts: -verdicts[0].rank)
    return [{"count": len(same), "word": same[0].word, "verdict": same[0].name} for same in ordered]
