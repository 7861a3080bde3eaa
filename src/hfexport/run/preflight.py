"""Compare a run's needs of disk and memory with the free amounts before weights are read or written."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hfexport._internal.sizes import size_text
from hfexport.backends.formats import FORMATS
from hfexport.checkpoint.weights import WeightFiles
from hfexport.errors import InputsError
from hfexport.validation.memory import available_bytes

__all__ = ["Needs", "peak_bytes", "refuse_large_conversion", "refuse_misfit"]

MEMORY_OF_A_CHILD_BYTES = 2**28
"""Least memory of a process that loads torch and transformers."""

SHARE_OF_WEIGHTS = 0.9
"""Least share of the model's weights in an artifact; some tasks leave weights out."""

WORTH_SAYING_BYTES = 10**9


@dataclass(frozen=True)
class Needs:
    """Sizes that decide how much disk and memory a run needs.

    Attributes:
        copy_bytes: size of the checkpoint's copy in the dtype of the export; 0 if no copy is needed.
        weight_bytes: size of the model's weights in that dtype.
        largest_bytes: size of the largest weight.
        formats: formats with weights, each with one or more artifacts.
        copy: description of the copy for the user.
    """

    copy_bytes: int
    weight_bytes: int
    largest_bytes: int
    formats: Sequence[str]
    copy: str = "the weights in another dtype"

    @property
    def disk_bytes(self) -> int:
        """Return the least number of bytes that will be written."""
        return self.copy_bytes + int(len(self.formats) * SHARE_OF_WEIGHTS * self.weight_bytes)

    @property
    def memory_bytes(self) -> int:
        """Return the least memory beyond this process: a child process, and one weight during conversion."""
        return MEMORY_OF_A_CHILD_BYTES + (self.largest_bytes if self.copy_bytes else 0)

    @property
    def parts(self) -> str:
        """Return the parts of the disk need, in words for the user."""
        copy = {self.copy: self.copy_bytes} if self.copy_bytes else {}
        sizes: Mapping[str, int] = {**copy, **dict.fromkeys(self.formats, self.weight_bytes)}
        return ", ".join(f"{size_text(size)} for {name}" for name, size in sizes.items())


def peak_bytes(weights_bytes: int) -> int:
    """Estimate the memory of a whole run from the size of its checkpoint's weights, to run several side by side.

    At the peak there are the exporting process, the reference and a runner. The reference maps the weights, and a
    session of ONNX Runtime holds a copy; twice that after widening from 16 bits.

    Args:
        weights_bytes: size of the weight files; 0 if unknown.
    """
    return 3 * MEMORY_OF_A_CHILD_BYTES + 2 * weights_bytes


def refuse_large_conversion(weights: WeightFiles, formats: Sequence[str], output: Path) -> None:
    """Reject a run that cannot fit before it converts the checkpoint's weights to safetensors.

    The sizes of the weights are not known yet. The bounds take into account that a pickle may hold the states of an
    optimizer, twice as large as the weights, and that artifacts may have half the bytes of the checkpoint's dtype.

    Args:
        weights: the checkpoint's weight files.
        formats: formats of the export.
        output: folder on the disk that gets all files.

    Raises:
        InputsError: gives the needed and the free amounts.
    """
    share = 0.3 if weights.format == "pytorch" else SHARE_OF_WEIGHTS
    weight_bytes = int(share * sum(path.stat().st_size for path in weights.files))
    traced = [name for name in formats if FORMATS[name].streams_weights]
    needs = Needs(weight_bytes, weight_bytes // 2, 0, traced, "the weights as safetensors")
    refuse_misfit(needs, output, available_bytes())


def refuse_misfit(needs: Needs, output: Path, memory_bytes: int | None) -> str:
    """Reject a run that cannot fit.

    Both needs are lower bounds, so that no run is rejected that would fit.

    Args:
        needs: needs of the run.
        output: folder on the disk that gets all files, including staging.
        memory_bytes: free memory by the machine's and all containers' limits; `None` if unknown.

    Returns:
        Needed and free amounts, in words for the user; empty if they are negligible.

    Raises:
        InputsError: gives both amounts.
    """
    free = shutil.disk_usage(
        next(path for path in (output.absolute(), *output.absolute().parents) if path.is_dir())
    ).free
    problems = []
    if needs.disk_bytes > free:
        problems.append(
            f"output {str(output)!r}: at least {size_text(needs.disk_bytes)} of disk are needed ({needs.parts}), and"
            f" {size_text(free)} are free. Free some space, choose a folder on a larger disk, or ask for fewer formats."
        )
    if memory_bytes is not None and needs.memory_bytes > memory_bytes:
        problems.append(
            f"at least {size_text(needs.memory_bytes)} of memory are needed, and {size_text(memory_bytes)} are free here, by the"
            " machine or by the container's limit. Use a machine or container with more memory."
        )
    if problems:
        raise InputsError(problems)
    if needs.disk_bytes < WORTH_SAYING_BYTES:
        return ""
    memory = "" if memory_bytes is None else f", {size_text(memory_bytes)} free"
    return (
        f"Needs {size_text(needs.disk_bytes)} of disk ({needs.parts}; {size_text(free)} free)"
        f" and {size_text(needs.memory_bytes)} of memory{memory}"
    )
