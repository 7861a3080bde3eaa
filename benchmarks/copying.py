"""What it takes to write weights and to hash them: by their mapping, as hfexport does, and by `copy_file_range`."""

from __future__ import annotations

import hashlib
import os
import resource
import statistics
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

__all__ = ["copying"]

SIZE_BYTES: Final = 2**30
_PART_BYTES: Final = 2**23
_TORCHSCRIPT_OFFSET: Final = 64
"""Alignment of tensors in TorchScript archives; safetensors aligns them to 8 bytes."""


def copying(folder: Path, runs: int) -> list[dict[str, Any]]:
    """Return medians of wall and processor time for 1 GiB in the page cache, in seconds."""
    source, target = folder / "copy-source", folder / "copy-target"
    _fill(source)
    works: dict[str, Callable[[], None]] = {
        "write from the mapped checkpoint": lambda: _from_mapping(source, target),
        "`copy_file_range` to an offset of 64 bytes": lambda: _in_kernel(source, target, _TORCHSCRIPT_OFFSET),
        "`copy_file_range`, aligned to pages": lambda: _in_kernel(source, target, 0),
        "SHA-256 of the file": lambda: _sha256(source),
        "CRC-32 of the mapping": lambda: _crc32(source),
    }
    rows = []
    for name, work in works.items():
        times = [_timed(work, target) for _ in range(runs + 1)][1:]
        wall_s, processor_s = (statistics.median(column) for column in zip(*times, strict=True))
        rows.append({"name": name, "wall_s": wall_s, "processor_s": processor_s})
    source.unlink()
    return rows


def _fill(path: Path) -> None:
    numbers = np.random.default_rng(0)
    with path.open("wb") as file:
        for _ in range(SIZE_BYTES // 2**24):
            file.write(numbers.bytes(2**24))


def _timed(work: Callable[[], None], target: Path) -> tuple[float, float]:
    target.unlink(missing_ok=True)
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    work()
    wall_s, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    target.unlink(missing_ok=True)
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _from_mapping(source: Path, target: Path) -> None:
    data = np.memmap(source, np.uint8, "r")
    with target.open("wb") as file:
        file.write(bytes(_TORCHSCRIPT_OFFSET))
        for start in range(0, SIZE_BYTES, _PART_BYTES):
            file.write(data[start : start + _PART_BYTES].data)


def _in_kernel(source: Path, target: Path, offset_bytes: int) -> None:
    with source.open("rb") as read, target.open("wb") as written:
        done = 0
        while done < SIZE_BYTES:
            done += os.copy_file_range(read.fileno(), written.fileno(), SIZE_BYTES - done, done, offset_bytes + done)


def _sha256(path: Path) -> None:
    with path.open("rb") as file:
        hashlib.file_digest(file, "sha256")


def _crc32(path: Path) -> None:
    data, found = np.memmap(path, np.uint8, "r"), 0
    for start in range(0, SIZE_BYTES, _PART_BYTES):
        found = zlib.crc32(data[start : start + _PART_BYTES].data, found)
