"""Decide the verdict of a run from the verdicts of its artifacts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hfexport.errors import ValidationError
from hfexport.run.loose_tolerance import refuse_loose

if TYPE_CHECKING:
    from hfexport.backends.base import Artifact
    from hfexport.manifest.model import ManifestVerdict
    from hfexport.run.inputs import Inputs
    from hfexport.validation.compare import ArtifactVerdict

__all__ = ["decide"]


def decide(results: Sequence[tuple[Artifact, ArtifactVerdict]], inputs: Inputs) -> ManifestVerdict:
    """Return the verdict of a run whose artifacts have not failed.

    Raises:
        ValidationError: an artifact failed, or has too loose a tolerance to be published.
    """
    failures = [
        f"{artifact.format}/{artifact.path.name}: {line}"
        for artifact, verdict in results
        if verdict.verdict == "failed"
        for line in (verdict.failures or ("no probe was answered",))
    ]
    if failures:
        more = f"\nand {len(failures) - 5} more, in the manifest" if len(failures) > 5 else ""
        raise ValidationError(
            "\n".join(failures[:5]) + more,
            remedy="The artifact is wrong or the tolerance too tight; nothing was left in the output folder.",
        )
    if inputs.push_to_hub and not inputs.publish_unvalidated:
        refuse_loose(results)
    found = {verdict.verdict for _, verdict in results}
    return "passed" if found == {"passed"} else "not_validated" if "not_run" in found else "incomplete"
