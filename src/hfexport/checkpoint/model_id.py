"""Model ids on the Hub: `owner/name`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

__all__ = ["HUB_ID", "is_hub_id"]

HUB_ID: Final = r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?/[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?"
"""Pattern of a repository's id on the Hub, `owner/name`."""


def is_hub_id(model: str) -> bool:
    """Return whether `model` is a repository id, `owner/name`, and not the path of an existing folder."""
    return re.fullmatch(HUB_ID, model) is not None and not Path(model).exists()
