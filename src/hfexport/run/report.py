"""Report file for a bug: traceback, versions and inputs, without secrets."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from hfexport.errors import InternalError

__all__ = ["REPORT_FILE", "write_report"]

REPORT_FILE: Final = "hfexport-report.txt"


def write_report(
    error: InternalError, manifest: Mapping[str, object], folder: Path, hide: Callable[[str], str]
) -> Path | None:
    """Write the report that a maintainer needs to find a bug.

    Args:
        error: the bug; its cause is the raised exception.
        manifest: manifest of the run, for inputs, versions, machine and stages.
        folder: folder in which `hfexport-report.txt` is written.
        hide: replaces secrets in a text.

    Returns:
        The file, or `None` if it cannot be written.
    """
    known = {name: manifest[name] for name in ("producer", "versions", "machine", "inputs", "source", "stages")}
    raised = error.details or "".join(traceback.format_exception(error.__cause__ or error))
    text = f"{error.message}\n\n{raised}\n{json.dumps(known, indent=2, ensure_ascii=False, default=str)}\n"
    path = folder / REPORT_FILE
    try:
        path.write_text(hide(text), encoding="utf-8", errors="backslashreplace")
    except OSError:
        return None
    return path
