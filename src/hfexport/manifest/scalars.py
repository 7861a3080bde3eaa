"""Kinds of numbers and texts in the manifest."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

__all__ = ["Commit", "Count", "Number", "Seconds", "Sha256"]

Count = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(ge=0)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Commit = Annotated[str, Meta(pattern="^[0-9a-f]{40}$")]

Number = float | str | None
"""A number; a string if JSON cannot represent it (`inf`, `nan`); null if there is none."""
