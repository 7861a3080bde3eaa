"""Run the command line in this process, and read the manifest that it wrote."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

from hfexport.cli.main import main
from hfexport.manifest.entries import MANIFEST_FILE


def run(output: Path | None, *arguments: str | Path) -> tuple[int, str]:
    """Run hfexport; return the exit code and what it wrote to standard error.

    Args:
        output: output folder; `None` for commands without one.
        arguments: further arguments.
    """
    stderr = io.StringIO()
    given = [] if output is None else ["--output", str(output)]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(stderr):
        code = main([*given, *map(str, arguments)])
    return code, stderr.getvalue()


def manifest_of(output: Path) -> dict[str, Any]:
    """Read the manifest of an export."""
    return dict(json.loads((output / MANIFEST_FILE).read_text(encoding="utf-8")))
