"""Compare what a run will need of disk and memory with what there is, before any weight is read or written."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hfexport.errors import InputsError

__all__ = ["Needs", "refuse_misfit"]

MEMORY_OF_A_CHILD_BYTES = 2**28
"""A process that loads torch and transformers has at least so much memory of its own."""

SHARE_OF_WEIGHTS = 0.9
"""An artifact holds at least this part of its model's weights; tasks leave some out."""

WORTH_SAYING_BYTES = 10**9


@dataclass(frozen=True)
class Needs:
    """What a run will need.

    Attributes:
        copy_bytes: of the checkpoint's weights in the dtype of the export; 0 if they have it already.
        weight_bytes: of the model's weights in that dtype.
        largest_bytes: of the largest weight.
        formats: that hold the weights, one artifact or more each.
    """

    copy_bytes: int
    weight_bytes: int
    largest_bytes: int
    formats: Sequence[str]

    @property
    def disk_bytes(self) -> int:
        """At least so much is written."""
        return self.copy_bytes + int(len(self.formats) * SHARE_OF_WEIGHTS * self.weight_bytes)

    @property
    def memory_bytes(self) -> int:
        """At least so much is taken beside what this process has already: a child, and a weight while it is converted."""
        return MEMORY_OF_A_CHILD_BYTES + (self.largest_bytes if self.copy_bytes else 0)

    @property
    def parts(self) -> str:
        """Of the disk, in words for the user."""
        copy = {"the weights in another dtype": self.copy_bytes} if self.copy_bytes else {}
        sizes: Mapping[str, int] = {**copy, **dict.fromkeys(self.formats, self.weight_bytes)}
        return ", ".join(f"{_size(size)} for {name}" for name, size in sizes.items())


def refuse_misfit(needs: Needs, output: Path, memory_bytes: int | None) -> str:
    """Refuse a run that cannot fit.

    Both needs are least values, so that nothing is refused that would fit.

    Args:
        needs: of the run.
        output: the folder whose disk gets all files, staging included.
        memory_bytes: what may still be taken, by the machine and by every container's limit; `None` if it is not known.

    Returns:
        What is needed and free, in words for the user; empty if it is too little to mention.

    Raises:
        InputsError: with the numbers.
    """
    free = shutil.disk_usage(output).free
    problems = []
    if needs.disk_bytes > free:
        problems.append(
            f"output {str(output)!r}: at least {_size(needs.disk_bytes)} of disk are needed ({needs.parts}), and"
            f" {_size(free)} are free. Free some space, choose a folder on a larger disk, or ask for fewer formats."
        )
    if memory_bytes is not None and needs.memory_bytes > memory_bytes:
        problems.append(
            f"at least {_size(needs.memory_bytes)} of memory are needed, and {_size(memory_bytes)} are free here, by the"
            " machine or by the container's limit. Use a machine or container with more memory."
        )
    if problems:
        raise InputsError(problems)
    if needs.disk_bytes < WORTH_SAYING_BYTES:
        return ""
    memory = "" if memory_bytes is None else f", {_size(memory_bytes)} free"
    return (
        f"Needs {_size(needs.disk_bytes)} of disk ({needs.parts}; {_size(free)} free)"
        f" and {_size(needs.memory_bytes)} of memory{memory}"
    )


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 10**9 else f"{size_bytes / 1e6:.0f} MB"
