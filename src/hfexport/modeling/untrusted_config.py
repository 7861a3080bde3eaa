"""Build models from an untrusted config.json within limits of time and size.

Loading a model allocates weights of the sizes in config.json for all weights that the checkpoint lacks or stores with
another shape, so the sizes are compared with the checkpoint's before anything is allocated.
"""

from __future__ import annotations

import math
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from hfexport.checkpoint.safetensors_header import read_header
from hfexport.errors import CheckpointError, first_line

if TYPE_CHECKING:
    import torch

__all__ = ["BUILD_FAILURES", "bounded", "read_model_config", "refuse_implausible"]

BUILD_TIMEOUT_S: Final = 60.0
"""Time limit in seconds: a thousand times that of the largest models on the meta device."""

MAX_SHARE: Final = 4
"""Largest ratio of the model's size to the checkpoint's: some weights are tied, some belong to a missing head."""
FREE_ELEMENTS: Final = 2**26
"""Number of elements allowed in addition, 256 MB in fp32, for tables that a small model computes when it is built."""

_REMEDY: Final = "Use the config.json that was saved with these weights."
BUILD_FAILURES: Final = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError),
)
"""Exceptions of a model's own code for a config with inconsistent values."""


def _remedy(error: Exception) -> str:
    computed = re.search(r"property '(\w+)' of .* has no setter", str(error))
    if computed is None:
        return "Use the config.json that was saved with the model."
    return f"Remove {computed[1]} from it: this version of transformers computes that value."


def read_model_config(folder: Path, *, trust_remote_code: bool = False, shown: Path | None = None) -> Any:
    """Read the `PreTrainedConfig` of a checkpoint.

    Args:
        folder: with config.json.
        trust_remote_code: run the checkpoint's code for it.
        shown: path of config.json to name in errors, if a copy is read.

    Raises:
        CheckpointError: transformers cannot build a config from it.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    except (*BUILD_FAILURES, OSError, StrictDataclassError) as error:
        raise CheckpointError(
            f"{shown or folder / 'config.json'}: transformers cannot read it: {first_line(error)}",
            remedy=_remedy(error),
        ) from error
    for part in [config, *(getattr(config, name, None) for name in config.sub_configs)]:
        if part is not None:
            # False makes the model return tuples, which have no names; the values are the same.
            part.return_dict = True
    if config.architectures is None:
        # If a task has several classes, transformers chooses one by these names.
        config.architectures = []
    return config


@contextmanager
def bounded(config_file: Path) -> Iterator[None]:
    """Context for building a model, with a time limit and one type of error.

    Raises:
        CheckpointError: the model cannot be built, or building it takes too long.
    """
    try:
        with _time_limit(config_file):
            yield
    except BUILD_FAILURES as error:
        raise CheckpointError(
            f"{config_file}: describes a model that cannot be built: {first_line(error)}", remedy=_REMEDY
        ) from error


def refuse_implausible(folder: Path, build: Callable[[], torch.nn.Module]) -> None:
    """Compare the size of the model that config.json describes with that of its weights.

    Args:
        folder: with config.json and safetensors.
        build: builds the model on the meta device, where weights take no memory.

    Raises:
        CheckpointError: the model cannot be built, or is far larger than its weights.
    """
    config_file = folder / "config.json"
    with bounded(config_file):
        model = build()
    headers = [read_header(path)[0] for path in folder.glob("*.safetensors")]
    given = sum(math.prod(tensor.shape) for header in headers for tensor in header.values())
    described = sum(tensor.numel() for tensors in (model.parameters(), model.buffers()) for tensor in tensors)
    if described > MAX_SHARE * given + FREE_ELEMENTS:
        raise CheckpointError(
            f"{config_file}: describes a model of {described:.3g} weights, but the checkpoint has {given:.3g}",
            remedy=_REMEDY,
        )


@contextmanager
def _time_limit(config_file: Path) -> Iterator[None]:
    """Interrupt the block after a time limit. Only the main thread can be interrupted; others have no limit."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(*_: object) -> NoReturn:
        raise CheckpointError(
            f"{config_file}: describes a model that is not built after {BUILD_TIMEOUT_S:g} s", remedy=_REMEDY
        )

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, BUILD_TIMEOUT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
