"""What TensorFlow answered (tests/support/tf), and what the PyTorch model answers with the converted weights.

As a program, it compares every checkpoint below a folder that `tests/support/tf/make_checkpoints.py --all` has written:

    .venv/bin/python tests/support/tensorflow_checkpoints.py FOLDER
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from hfexport._internal.messages import plain
from hfexport.checkpoint import look_over
from hfexport.errors import HfexportError
from hfexport.modeling.conversion import conversion_job, worker
from hfexport.modeling.load import quiet

__all__ = ["ANSWER_OTHERWISE", "COMMITTED", "TOLERANCE", "convert", "difference", "largest_difference"]

COMMITTED = Path(__file__).parent / "tf" / "checkpoints"
TOLERANCE = 1e-4


def convert(folder: Path, target: Path) -> dict[str, Any]:
    """Convert a checkpoint in this process; the child's module does the same in one of its own."""
    return worker.run(plain(conversion_job(look_over(folder), target)))


def largest_difference(folder: Path, converted: Path) -> dict[str, float]:
    """By output, how far the PyTorch model with the converted weights is from what TensorFlow answered.

    Absolute, or relative to the largest value where that passes 1. Tokens of padding are nobody's answer, and DeBERTa's
    classes differ there: they are left out.
    """
    import torch
    import transformers

    name = json.loads((folder / "config.json").read_bytes())["architectures"][0]
    model_class = getattr(transformers, name)
    with quiet():
        model, info = model_class.from_pretrained(
            converted, output_loading_info=True, attn_implementation="eager", local_files_only=True
        )
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    with np.load(folder / "reference.npz") as reference:
        inputs = {key[6:]: torch.from_numpy(reference[key]) for key in reference if key.startswith("input.")}
        wanted = {key[7:]: reference[key] for key in reference if key.startswith("output.")}
    inputs = {key: value.long() if value.dtype == torch.int32 else value for key, value in inputs.items()}
    with torch.inference_mode(), _as_tensorflow_computes(model.eval()):
        given = model(**inputs)
    mask = None if "attention_mask" not in inputs else inputs["attention_mask"].numpy()
    return {key: difference(given[key].numpy(), value, mask) for key, value in wanted.items()}


def difference(given: np.ndarray, wanted: np.ndarray, mask: np.ndarray | None) -> float:
    """The largest, absolute, or relative to the largest value where that passes 1; without tokens of padding."""
    assert given.shape == wanted.shape
    off = np.abs(given - wanted) / max(1.0, np.abs(wanted).max())
    if mask is not None and off.shape[:2] == mask.shape:
        off = off[mask != 0]
    return float(off.max())


@contextmanager
def _as_tensorflow_computes(model: Any) -> Iterator[None]:
    """Have a model compute as its TensorFlow class did, where that was wrong and transformers 5 is right."""
    with ExitStack() as stack:
        if type(model).__name__ in ANSWER_OTHERWISE:
            stack.enter_context(ANSWER_OTHERWISE[type(model).__name__](model))
        yield


@contextmanager
def _patches_from_the_second_token(model: Any) -> Iterator[None]:
    """DeiT's image was reconstructed from tokens 1 to n-1, by PyTorch's class too; its patches are tokens 2 to n."""
    import torch

    def shift(_module: Any, _args: Any, outputs: Any) -> Any:
        hidden = outputs.last_hidden_state
        outputs.last_hidden_state = torch.cat([hidden[:, :1], hidden[:, :-1]], dim=1)
        return outputs

    hook = model.deit.register_forward_hook(shift)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _each_pooling_after_the_other(model: Any) -> Iterator[None]:
    """TensorFlow's pyramid pooling pools what the scale before it gave, not the image's own features."""
    from torch.nn.functional import interpolate

    module = model.decode_head.psp_modules

    def forward(features: Any) -> list[Any]:
        size, pooled = features.shape[2:], []
        for block in module.blocks:
            features = block.conv(block.pooling(features))
            pooled.append(interpolate(features, size=size, mode="bilinear", align_corners=False))
        return pooled

    with mock.patch.object(module, "forward", forward):
        yield


ANSWER_OTHERWISE: Mapping[str, Callable[[Any], AbstractContextManager[None]]] = {
    "DeiTForMaskedImageModeling": _patches_from_the_second_token,
    "Data2VecVisionForSemanticSegmentation": _each_pooling_after_the_other,
}
"""By PyTorch class: its weights are the same, its answers are not, and how it gives those of TensorFlow."""


def main() -> int:
    failed = 0
    for folder in sorted(path.parent for path in Path(sys.argv[1]).glob("*/reference.npz")):
        if len(sys.argv) > 2 and folder.name not in sys.argv[2:]:
            continue
        with tempfile.TemporaryDirectory() as temporary:
            try:
                convert(folder, Path(temporary))
                differences = largest_difference(folder, Path(temporary))
                worst = max(differences.values())
                verdict = "ok" if worst < TOLERANCE else "OFF"
                line = f"{worst:.1e} {', '.join(f'{key} {value:.1e}' for key, value in differences.items())}"
            except (HfexportError, AssertionError, KeyError, ValueError, RuntimeError, TypeError) as error:
                verdict, line = "FAILED", f"{type(error).__name__}: {str(error)[:400]}"
        failed += verdict != "ok"
        print(f"{verdict} {folder.name} {line}", flush=True)
    print(f"{failed} failed")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
