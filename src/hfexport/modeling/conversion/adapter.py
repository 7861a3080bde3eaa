"""Merge an adapter into its base model in a child process, before anything is exported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hfexport.checkpoint import Checkpoint, copy_along
from hfexport.checkpoint.adapter import Adapter
from hfexport.checkpoint.sentence_folder import MODULES_FILE
from hfexport.modeling.conversion.child import run_child
from hfexport.modeling.conversion.messages import MergeJob

__all__ = ["merge"]


def merge(adapter: Adapter, base: Checkpoint, folder: Path, env: Mapping[str, str]) -> Path:
    """Write the base model with the adapter merged in as a checkpoint.

    Args:
        adapter: adapter to merge.
        base: checkpoint to merge it into.
        folder: an empty folder of the run.
        env: environment; the child gets an allow-list of it.

    Returns:
        The checkpoint's folder. Tokenizer and processor files come from the adapter if it has them, else from the base.

    Raises:
        CheckpointError: the adapter is damaged or does not fit the base.
        UnsupportedError: the adapter cannot be merged, or its model needs a head that neither folder has.
    """
    target = folder.resolve() / "checkpoint"
    job = MergeJob(
        adapter=str(adapter.folder.resolve()),
        adapter_weights=str(adapter.weights.absolute()),
        base=str(base.folder.resolve()),
        base_name=base.contents.folder.name,
        dtype=base.dtype,
        bare=MODULES_FILE in adapter.along,
        folder=str(target),
    )
    name = f"merging of {adapter.weights.name}"
    size_bytes = base.size_bytes + adapter.weights.stat().st_size
    run_child(
        "hfexport.modeling.conversion.adapter_worker", job, name=name, folder=folder, env=env, size_bytes=size_bytes
    )
    along = {**base.along, **adapter.along}
    copy_along({name: path for name, path in along.items() if name != "config.json"}, target)
    return target
