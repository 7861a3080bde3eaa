"""Refuse to publish artifacts that were validated with a loose tolerance, unless the user names it."""

from __future__ import annotations

from collections.abc import Sequence

from hfexport.backends.base import Artifact
from hfexport.errors import ValidationError
from hfexport.export_config import TOLERANCE_CAP
from hfexport.validation.verdict import ArtifactVerdict

__all__ = ["refuse_loose"]


def refuse_loose(results: Sequence[tuple[Artifact, ArtifactVerdict]]) -> None:
    """Refuse to publish artifacts with a loose tolerance, such as that of a user's class.

    Raises:
        ValidationError: an artifact has a loose tolerance.
    """
    for artifact, verdict in results:
        if verdict.verdict != "not_run" and verdict.tolerance is not None and verdict.tolerance.is_loose:
            raise ValidationError(
                f"{artifact.format}/{artifact.path.name}: was compared within atol {verdict.tolerance.atol:g} and rtol"
                f" {verdict.tolerance.rtol:g}; above {TOLERANCE_CAP:g}, artifacts are published only by name",
                remedy="Give a smaller tolerance as atol, or publish-unvalidated: true.",
            )
