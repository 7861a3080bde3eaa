"""Options of a Neuron export: the SDK's interpreter and the compiler's settings. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

__all__ = ["COMPILERS", "MODULES", "PACKAGES", "NeuronOptions", "NeuronRun", "Target", "separate_weights_bytes"]

Target = Literal["inf1", "inf2"]

MODULES: Final[Mapping[str, str]] = {"inf1": "torch_neuron", "inf2": "torch_neuronx"}
"""Module that a user of the artifact imports, by target."""

COMPILERS: Final[Mapping[str, str]] = {"inf1": "neuron-cc", "inf2": "neuronx-cc"}

PACKAGES: Final[Mapping[str, str]] = {
    "inf1": "torch-neuron==1.13.1.* 'neuron-cc[tensorflow]==1.24.*'",
    "inf2": "torch-neuronx==2.9.* neuronx-cc==2.*",
}
"""Requirements for `pip install` of the SDK, by target."""

SEPARATE_WEIGHTS_BYTES: Final = 1_900_000_000
"""Limit for weights inside the compiled graph. It is below protobuf's 2 GiB, with room for data other than weights."""


def separate_weights_bytes(asked: str) -> int | None:
    """Convert the input neuron-separate-weights (`auto`, `true` or `false`) to a limit in bytes; `None`: no limit."""
    return {"auto": SEPARATE_WEIGHTS_BYTES, "true": 0}.get(asked)


@dataclass(frozen=True)
class NeuronOptions:
    """Compile options.

    Attributes:
        target: `inf1`, or `inf2` for Inf2, Trn1 and Trn2.
        python: absolute path of the interpreter whose environment has the target's SDK.
        compiler_args: arguments passed on to the compiler unchanged.
        timeout_s: time limit for compiling one graph.
        dynamic_batch_size: let the artifact take any batch size, by running it in chunks of the compiled size.
        minimum_segment_size: leave sequences of fewer operators than this on CPU (Inf1).
        fallback: leave operators that cannot be compiled on CPU instead of failing (Inf1).
        optimizations: names in `torch_neuron.Optimization` (Inf1).
        separate_weights_bytes: store weights beside the compiled graph if they are larger than this; the compiled
            graph's format ends at 2 GB. `None`: never.
    """

    target: Target
    python: Path
    compiler_args: tuple[str, ...] = ()
    timeout_s: int = 3600
    dynamic_batch_size: bool = False
    minimum_segment_size: int = 2
    fallback: bool = True
    optimizations: tuple[str, ...] = ()
    separate_weights_bytes: int | None = SEPARATE_WEIGHTS_BYTES


@dataclass(frozen=True)
class NeuronRun:
    """Options and state of one Neuron export or validation.

    Attributes:
        options: compile options.
        folder: folder for files exchanged with the SDK's interpreter; none of them is part of the artifact.
        env: environment variables; the child process gets those on an allow-list.
        listen: called with the lines that the child process prints.
    """

    options: NeuronOptions
    folder: Path
    env: Mapping[str, str]
    listen: Callable[[Iterable[str]], None]
