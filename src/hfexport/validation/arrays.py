"""Folders of named arrays in which the processes of a validation exchange inputs and outputs.

Each array is a `.npy` file, and an index stores names and order. Arrays are read as memory maps, so that large ones are
not held in memory.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hfexport.export_config.arrays import Arrays

__all__ = ["await_arrays", "read_arrays", "write_arrays"]

POLL_S: Final = 0.005
"""Interval for looking whether arrays of another process are complete."""


def write_arrays(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write `arrays` in order to a new `folder`."""
    folder.mkdir(parents=True)
    for number, array in enumerate(arrays.values()):
        np.save(folder / f"{number}.npy", np.asarray(array, order="C"), allow_pickle=False)
    # The index appears last and whole, so a folder with an index is complete.
    (folder / "index.json.part").write_text(json.dumps(list(arrays)), encoding="utf-8")
    os.replace(folder / "index.json.part", folder / "index.json")


def await_arrays(folder: Path) -> Arrays:
    """Return the arrays of `folder` as soon as another process has written them; that process may not have begun.

    The caller is ended from outside if they never come.
    """
    while not (folder / "index.json").exists():
        time.sleep(POLL_S)
    return read_arrays(folder)


def read_arrays(folder: Path) -> Arrays:
    """Return the arrays of `folder` in order, mapped read-only."""
    names = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    return {name: _read(folder / f"{number}.npy") for number, name in enumerate(names)}


def _read(path: Path) -> NDArray[Any]:
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array
