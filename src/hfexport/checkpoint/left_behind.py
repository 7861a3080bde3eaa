"""Find files of a checkpoint folder that look like weights but are neither read nor copied."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from hfexport.checkpoint.weights import WEIGHT_FILE_NAMES, variant_of

__all__ = ["files_below", "left_behind", "left_in_folder"]

_WEIGHTS: Final = re.compile(r".*\.(bin|ckpt|h5|joblib|npy|npz|pickle|pkl|pt|pth|safetensors|skops)")
_COPIES: Final = re.compile(
    r"(model|pytorch_model|tf_model)-\d{5}-of-\d{5}\.\w+|(pytorch_|tf_)?model\.\w+|adapter_model\.\w+|consolidated.*"
)
"""Files with the same weights in another format, and their shards."""

_TRAINING: Final = re.compile(r"(optimizer|optim|scheduler|scaler|rng_state|training_args|random_states|trainer).*")
"""Files with the state of a training loop, which do not change the model."""

_OTHER_FOLDERS: Final = ("onnx", "openvino", "torchscript", "neuron", "coreml", "runs", "original")


def left_behind(names: Iterable[str], used: Collection[str]) -> tuple[str, ...]:
    """Return the files, such as a classifier's `model_head.pkl`, that look like weights but are not in the export.

    Args:
        names: paths of the files in the folder.
        used: paths of files that are read or copied.
    """
    found = []
    for path in sorted(set(names) - set(used)):
        place, _, name = path.rpartition("/")
        if "/" in place or place in _OTHER_FOLDERS or place.startswith("checkpoint-"):
            continue
        copies = name in WEIGHT_FILE_NAMES or variant_of(name) or _COPIES.fullmatch(name)
        if _WEIGHTS.fullmatch(name) and not copies and not _TRAINING.fullmatch(name):
            found.append(path)
    return tuple(found)


def files_below(folder: Path) -> tuple[str, ...]:
    """Return the relative paths of the files in a folder and its direct subfolders."""
    paths = [*folder.iterdir(), *folder.glob("*/*")]
    return tuple(path.relative_to(folder).as_posix() for path in paths if path.is_file())


def left_in_folder(folder: Path, used: Iterable[Path]) -> tuple[str, ...]:
    """Return the files of a folder that `left_behind` finds, given those that are read or copied."""
    paths = {path.resolve() for path in used}
    names = files_below(folder)
    return left_behind(names, [name for name in names if (folder / name).resolve() in paths])
