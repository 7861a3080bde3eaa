"""Find the interpreter that has the Neuron SDK, and check that it has what a target needs. Does not import torch."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hfexport.backends.neuron.messages import ProbeAnswer, ProbeRequest
from hfexport.backends.neuron.options import COMPILERS, MODULES, NeuronRun, Target
from hfexport.backends.neuron.protocol import START_S, ask
from hfexport.errors import NeuronError

__all__ = ["IMAGE_PYTHONS", "check_environment", "find_python"]

IMAGE_PYTHONS: Final[Mapping[str, Path]] = {
    "inf1": Path("/opt/neuron/inf1/bin/python"),
    "inf2": Path("/opt/neuron/inf2/bin/python"),
}
"""Interpreter of each target's environment in the container image, if the image was built with it."""

_IMAGES: Final[Mapping[str, str]] = {
    "inf1": "Use a released action without /slim, or an image built with --build-arg NEURON=inf1",
    "inf2": "Use an image built with --build-arg NEURON=inf2; no released image has that SDK",
}
"""Advice for each target on which image contains its environment."""


def find_python(asked: str | None, target: Target) -> Path:
    """Return the interpreter to use: the given one, or the image's.

    Raises:
        NeuronError: there is no such interpreter.
    """
    if asked is None:
        python = IMAGE_PYTHONS[target]
        if not python.is_file():
            raise NeuronError(
                f"no environment with the Neuron SDK for {target}: neuron-python is unset, and there is no {python}",
                remedy=f"{_IMAGES[target]}, or give neuron-python: the Python of an environment with "
                f"{MODULES[target]} and {COMPILERS[target]}. docs/neuron.md describes both.",
            )
        return python
    found = shutil.which(asked)
    if found is None:
        raise NeuronError(
            f"neuron-python is {asked!r}, which is not a program",
            remedy="Give the Python of the environment with the Neuron SDK; docs/neuron.md says how to create one.",
        )
    # Absolute but not resolved: a virtual environment's python is a link that lies beside the compiler.
    return Path(found).absolute()


def check_environment(run: NeuronRun) -> dict[str, str]:
    """Check, before any work, that the interpreter has everything that the target needs.

    Returns:
        Versions of Python and of the packages used.

    Raises:
        NeuronError: a package is missing, a placeholder or of a wrong version; the remedy says what to install.
    """
    return ask(run, ProbeRequest(), ProbeAnswer, run.folder / "probe", timeout_s=START_S).values.versions
