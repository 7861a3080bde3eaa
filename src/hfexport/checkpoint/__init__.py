"""Reading checkpoints: what a folder holds and whether it is whole. Torch-free; no weights are read."""

from __future__ import annotations

from hfexport.checkpoint.local import Checkpoint, copy_along, open_checkpoint, sha256

__all__ = ["Checkpoint", "copy_along", "open_checkpoint", "sha256"]
