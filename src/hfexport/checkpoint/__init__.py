"""Open checkpoints: locate files, check that folders are complete, read headers. Torch-free; weights are mapped."""

from __future__ import annotations

from hfexport.checkpoint.local import (
    Checkpoint,
    Contents,
    Conversion,
    copy_along,
    look_over,
    open_checkpoint,
    read_checkpoint,
    sha256,
)

__all__ = [
    "Checkpoint",
    "Contents",
    "Conversion",
    "copy_along",
    "look_over",
    "open_checkpoint",
    "read_checkpoint",
    "sha256",
]
