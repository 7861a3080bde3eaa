#!/usr/bin/env python3
"""Write the tables of docs/variants.md from the code, and from the manifests of exports.

hfexport --model MODEL --formats onnx --variants fp16,int8,… --output out
scripts/write_variants.py out/hfexport.json [more manifests]
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from hfexport.backends.variants import VARIANTS
from hfexport.manifest.variants import VARIANT_COLUMNS, variant_rows
from hfexport.validation.quality.thresholds import LIMITS

DOCUMENT = Path(__file__).resolve().parent.parent / "docs/variants.md"


def main(argv: Sequence[str]) -> int:
    """Replace each block between markers; measured tables stay if no manifest is given."""
    text = DOCUMENT.read_text(encoding="utf-8")
    text = _replace(text, "limits", _limits())
    if argv:
        text = _replace(text, "measured", "\n\n".join(_measured(Path(path)) for path in argv))
    DOCUMENT.write_text(text, encoding="utf-8")
    return 0


def _limits() -> str:
    first = next(iter(LIMITS.values()))
    names = list(vars(first))
    rows = [["variants", *(name.replace("_", " ") for name in names)], ["---"] * (len(names) + 1)]
    for key, limits in LIMITS.items():
        variants = ", ".join(f"`{variant.name}`" for variant in VARIANTS.values() if variant.limits == key)
        rows.append([variants, *(f"{vars(limits)[name]:g}" for name in names)])
    return _table(rows)


def _measured(path: Path) -> str:
    manifest = json.loads(path.read_text(encoding="utf-8"))
    source = manifest["source"]
    data = manifest["variants"][0]["quality"]["data"]
    title = f"{source['model_type']}, {source['architectures'][0]}, task `{manifest['task']}`, measured on {data}:"
    rows = variant_rows(manifest)
    measured = [column for column in range(len(VARIANT_COLUMNS)) if any(row[column] != "-" for row in rows)]
    cells = [[row[column] for column in measured] for row in (VARIANT_COLUMNS, ["---"] * len(VARIANT_COLUMNS), *rows)]
    return title + "\n\n" + _table(cells)


def _table(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _replace(text: str, name: str, content: str) -> str:
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
    return pattern.sub(lambda _: f"{start}\n{content}\n{end}", text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
