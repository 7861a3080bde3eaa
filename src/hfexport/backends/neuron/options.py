"""What a Neuron export is asked for: the SDK's interpreter, and how its compiler is called. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from hfexport.backends.neuron.plan import PartPlan

__all__ = ["COMPILERS", "MODULES", "PACKAGES", "NeuronOptions", "NeuronRun", "Target", "separate_weights_bytes"]

Target = Literal["inf1", "inf2"]

MODULES: Final[Mapping[str, str]] = {"inf1": "torch_neuron", "inf2": "torch_neuronx"}
"""What a user of the artifact imports."""

COMPILERS: Final[Mapping[str, str]] = {"inf1": "neuron-cc", "inf2": "neuronx-cc"}

PACKAGES: Final[Mapping[str, str]] = {
    "inf1": "torch-neuron==1.13.1.* 'neuron-cc[tensorflow]==1.24.*'",
    "inf2": "torch-neuronx==2.9.* neuronx-cc==2.*",
}
"""What `pip install` is given for the SDK itself."""

SEPARATE_WEIGHTS_BYTES: Final = 1_900_000_000
"""Below the 2 GiB of a protobuf message, by which the graph reaches the compiler, with room for what is no weight."""


def separate_weights_bytes(asked: str) -> int | None:
    """`NeuronOptions.separate_weights_bytes` for the input neuron-separate-weights: `auto`, `true` or `false`."""
    return {"auto": SEPARATE_WEIGHTS_BYTES, "true": 0}.get(asked)


@dataclass(frozen=True)
class NeuronOptions:
    """How to compile.

    Attributes:
        target: `inf1`, or `inf2` for Inf2, Trn1 and Trn2.
        python: the interpreter of the environment that holds the target's SDK; absolute.
        compiler_args: passed on to the compiler as they are.
        timeout_s: how long compiling one graph may take.
        dynamic_batch_size: let the artifact take any batch, in parts of the compiled one.
        minimum_segment_size: fewer operators than this in a row stay on CPU (Inf1).
        fallback: leave operators that cannot be compiled on CPU, rather than fail (Inf1).
        optimizations: names in `torch_neuron.Optimization` (Inf1).
        separate_weights_bytes: weights of more than this are kept beside the compiled graph, whose format ends at 2 GB;
            `None`: never.
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
    """The options and what goes with them through one run of hfexport.

    Attributes:
        options: how to compile.
        folder: for the files exchanged with the SDK's interpreter; none of them is part of the artifact.
        env: the environment of which the child sees an allow-list.
        listen: gets the lines that the child prints.
        parts: the graphs to compile.
    """

    options: NeuronOptions
    folder: Path
    env: Mapping[str, str]
    listen: Callable[[Iterable[str]], None]
    parts: tuple[PartPlan, ...] = ()
