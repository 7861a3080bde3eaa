"""Commands for many models: `plan`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from hfexport.cli.console import Console
from hfexport.run.inputs import Parsed

__all__ = ["plan"]


def plan(parsed: Parsed, console: Console, env: Mapping[str, str]) -> int:
    """Print what a fleet would export, or the matrix of its jobs."""
    from hfexport.run.fleet.plan import make_plan, matrix

    made = make_plan(Path(parsed.positional), parsed.inputs, console, env)
    if parsed.own["matrix"]:
        text = json.dumps(matrix(made.todo), ensure_ascii=False)
        console.write_outputs({"matrix": text, "count": str(len(made.todo))})
        console.data(text)
    elif "json" in parsed.flags:
        todo, current = ([one.to_dict() for one in group] for group in (made.todo, made.current))
        console.data(json.dumps({"todo": todo, "current": current}, ensure_ascii=False, indent=2))
    elif made.todo:
        rows = [
            [
                one.member.name,
                size_text(one.found.weights_bytes),
                ", ".join(one.member.inputs.formats),
                one.member.inputs.push_to_hub or "",
                one.member.inputs.output,
            ]
            for one in made.todo
        ]
        console.data(aligned(("model", "weights", "formats", "publish to", "output"), rows))
    total = sum(one.found.weights_bytes for one in made.todo)
    console.note(f"{len(made.todo)} to export ({size_text(total)} of weights), {len(made.current)} current")
    return 0


def aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as text with aligned columns."""
    lines = [[" ".join(cell.split()) for cell in row] for row in (columns, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def size_text(size_bytes: int) -> str:
    """Return a size in words for the user."""
    if not size_bytes:
        return "unknown"
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 10**9 else f"{size_bytes / 1e6:.1f} MB"
