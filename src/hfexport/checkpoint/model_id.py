"""Model ids on the Hub: `owner/name`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

__all__ = ["HUB_ID", "is_hub_id"]

HUB_ID: Final = r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?/[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?"
"""A repository on the Hub, `owner/name`."""


def is_hub_id(model: str) -> bool:
    """Whether `model` names a repository, `owner/name`, rather than a folder: it has that form, and no folder has it."""
    return re.fullmatch(HUB_ID, model) is not None and not Path(model).exists()
