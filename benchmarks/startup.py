"""How long hfexport takes to end where there is nothing to export. docs/publishing.md has the time of a push with nothing to do."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any, Final

from comparison import quiet
from process_tree import measure

__all__ = ["startup"]

COMMANDS: Final = (("a wrong input", ("--opset", "x"), 1.0), ("`--help`", ("--help",), 0.5))
"""Name, arguments, and the goal in seconds."""


def startup(folder: Path, runs: int) -> list[dict[str, Any]]:
    """Return the median wall time of each, in seconds, with its goal."""
    rows = []
    for name, arguments, goal_s in COMMANDS:
        command = [sys.executable, "-m", "hfexport", *arguments]
        results = [measure(command, log=folder / "startup.log", env=quiet(), memory=False) for _ in range(runs + 1)]
        wall_s = statistics.median(result.wall_s for result in results[1:])
        rows.append({"name": name, "wall_s": wall_s, "goal_s": goal_s})
    return rows
