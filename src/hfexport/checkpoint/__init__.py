"""Reading checkpoints: what a folder holds and whether it is whole. Torch-free; no weights are read."""

from __future__ import annotations

from hfexport.checkpoint.hub import HubModel
from hfexport.checkpoint.local import Checkpoint, copy_along, open_checkpoint, sha256
from hfexport.checkpoint.source import Source, identity, locate

__all__ = [
    "Checkpoint",
    "HubModel",
    "Source",
    "copy_along",
    "identity",
    "locate",
    "open_checkpoint",
    "sha256",
]
