"""Child process that says which large libraries it has imported."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

__all__ = ["run"]


def run(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return the names of imported libraries as `loaded`."""
    return {"loaded": [name for name in ("torch", "transformers", "onnxruntime") if name in sys.modules]}
