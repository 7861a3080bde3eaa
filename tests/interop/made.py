"""What tests of consumers start from: tiny exports, and what they are asked with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hfexport.cli.main import main
from tiny import make_checkpoint

__all__ = ["BEAMS", "GREEDY", "export", "text"]

GREEDY: Mapping[str, Any] = {"max_new_tokens": 16, "do_sample": False, "num_beams": 1}
BEAMS: Mapping[str, Any] = {"max_new_tokens": 16, "do_sample": False, "num_beams": 3}
"""Beam search reorders the rows of the cache at every step."""


def export(folder: Path, model_type: str, task: str, *, layout: str = "auto", **settings: Any) -> tuple[Path, Path]:
    """A tiny checkpoint and the folder of its export."""
    checkpoint = make_checkpoint(folder / "checkpoint", model_type, task, **settings)
    output = folder / "output"
    asked = ["--model", str(checkpoint), "--task", task, "--formats", "onnx", "--layout", layout]
    assert main([*asked, "--output", str(output)]) == 0
    return checkpoint, output


def text(vocabulary: int, pad: int, *, left: bool = False) -> dict[str, np.ndarray[Any, Any]]:
    """Three rows of token ids, two of them padded; ids that mean something to models are left out."""
    ids = np.random.default_rng(0).integers(5, vocabulary - 2, (3, 9))
    mask = np.ones_like(ids)
    mask[1, 6:] = mask[2, 4:] = 0
    if left:
        mask = mask[:, ::-1].copy()
    return {"input_ids": np.where(mask == 0, pad, ids), "attention_mask": mask}
