"""How long starts take: of commands with nothing to export, and of imports with warm and cold page cache.

docs/publishing.md has the time of a push with nothing to do.
"""

from __future__ import annotations

import os
import statistics
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from comparison import quiet
from process_tree import measure

__all__ = ["startup"]

COMMANDS: Final = (("a wrong input", ("--opset", "x"), 1.0), ("`--help`", ("--help",), 0.5))
"""Name, arguments, and the goal in seconds."""

IMPORTS: Final = (
    ("the command line", "import hfexport.cli.main"),
    ("torch", "import torch"),
    (
        "torch, transformers and hfexport's back ends",
        "import hfexport.backends.onnx.skeleton, hfexport.backends.torchscript.trace",
    ),
    ("ONNX Runtime", "import onnxruntime"),
)
"""What is imported, and the statement that imports it."""


def startup(folder: Path, runs: int) -> list[dict[str, Any]]:
    """Return the median wall time of each, in seconds, with its goal."""
    rows = []
    for name, arguments, goal_s in COMMANDS:
        command = [sys.executable, "-m", "hfexport", *arguments]
        rows.append({"name": name, "wall_s": _median(command, folder, runs), "goal_s": goal_s})
    for name, statement in IMPORTS:
        command = [sys.executable, "-c", statement]
        warm_s = _median(command, folder, runs)
        cold_s = _median(command, folder, runs, before=forget_packages)
        rows.append({"name": f"import of {name}", "wall_s": warm_s, "cold_s": cold_s})
    return rows


def _median(command: list[str], folder: Path, runs: int, before: Callable[[], None] = lambda: None) -> float:
    walls = []
    for _ in range(runs + 1):
        before()
        walls.append(measure(command, log=folder / "startup.log", env=quiet(), memory=False).wall_s)
    return statistics.median(walls[1:])


def forget_packages() -> None:
    """Have the page cache drop the standard library and all packages, as far as no other process has them mapped."""
    folders = {sysconfig.get_path(name) for name in ("stdlib", "platlib", "purelib")}
    for path in (Path(place, name) for folder in folders for place, _, names in os.walk(folder) for name in names):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
