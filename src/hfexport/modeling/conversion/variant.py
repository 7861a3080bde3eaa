"""Link the weight files of a variant under the names that transformers reads by default."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from hfexport.checkpoint import Checkpoint
from hfexport.checkpoint.contained import files_beside

__all__ = ["link_variant"]


def link_variant(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """Link a variant's weights, such as model.fp16.safetensors, as `model.safetensors`, and link the other files.

    Args:
        checkpoint: checkpoint of PyTorch safetensors.
        folder: an empty folder of the run.
    """
    weights = checkpoint.contents.weights
    folder.mkdir(parents=True)
    for path in files_beside(checkpoint.folder):
        if not path.name.endswith(".index.json") and path != weights.index:
            (folder / path.name).symlink_to(path.absolute())
    if weights.index is None:
        (folder / "model.safetensors").symlink_to(weights.files[0].absolute())
    else:
        shutil.copyfile(weights.index, folder / "model.safetensors.index.json")
        for path in weights.files:
            (folder / path.name).symlink_to(path.absolute())
    return replace(checkpoint, folder=folder, weight_files=tuple(sorted(folder.glob("*.safetensors"))))
