"""Open the graph templates of a run, and store new ones in the cache folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hfexport.backends.templates import Templates, settle
from hfexport.run.inputs import Inputs

__all__ = ["keep_templates", "templates_for"]


def templates_for(inputs: Inputs, staging: Path) -> Templates | None:
    """Return the graph templates of the cache folder; `None` if the inputs name none."""
    return None if inputs.cache is None else Templates(Path(inputs.cache), staging / "templates")


def keep_templates(inputs: Inputs, staging: Path, warn: Callable[[str], None]) -> None:
    """Move new graph templates into the cache; a cache that cannot be written does not fail the run."""
    if (templates := templates_for(inputs, staging)) is None:
        return
    try:
        settle(templates.made, templates.cache)
    except OSError as error:
        warn(f"Graph templates were not stored: folder {inputs.cache!r}: {error.strerror}.")
