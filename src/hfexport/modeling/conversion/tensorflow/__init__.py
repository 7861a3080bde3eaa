"""Convert TensorFlow weights for a PyTorch model without TensorFlow: rename, transpose and match them to parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfexport._internal.upstream.models import model_mapping
from hfexport.errors import CheckpointError, UnsupportedError
from hfexport.export_config.tasks import TASKS
from hfexport.modeling.conversion.tensorflow.placement import Placed, place
from hfexport.modeling.conversion.tensorflow.rules import rules_for
from hfexport.modeling.untrusted_config import bounded, read_model_config

if TYPE_CHECKING:
    import torch

    from hfexport.checkpoint.stored import StoredTensor

__all__ = ["place_weights"]


def place_weights(folder: Path, architectures: Sequence[str], stored: Sequence[StoredTensor]) -> Placed:
    """Match TensorFlow weights with the model that they were saved from.

    Args:
        folder: folder with config.json.
        architectures: class names in config.json. If empty, the class is found by the weights.
        stored: all weights, with their TensorFlow names.

    Raises:
        CheckpointError: config.json cannot be read, or the weights do not match the model one to one.
        UnsupportedError: transformers has no PyTorch class for the model.
    """
    from hfexport.modeling.load import quiet

    with quiet():
        config = read_model_config(folder)
    rules = rules_for(config.model_type)
    problem: CheckpointError | None = None
    for model_class in _classes(config, architectures):
        try:
            with bounded(folder / "config.json"):
                model = _empty(model_class, config)
            return place(stored, model, rules)
        except CheckpointError as error:
            problem = problem or CheckpointError(
                f"{folder}: as {model_class.__name__}: {error.message}", remedy=error.remedy
            )
    raise problem or UnsupportedError(
        f"{folder}: transformers has no PyTorch class for {', '.join(architectures) or config.model_type}",
        remedy="Load it with transformers 4 and TensorFlow, and save the model as PyTorch safetensors.",
    )


def _classes(config: Any, architectures: Sequence[str]) -> Iterator[Any]:
    """Yield the class that config.json names; if it names none, the classes of all tasks."""
    import transformers

    if architectures:
        named = getattr(transformers, architectures[0].removeprefix("TF"), None)
        if named is not None:
            yield named
        return
    for auto_class in dict.fromkeys(task.auto_class for task in TASKS.values()):
        found = model_mapping(auto_class).get(type(config), None)
        if found is not None:
            yield found[0] if isinstance(found, tuple) else found


def _empty(model_class: Any, config: Any) -> torch.nn.Module:
    """Create the model on the meta device, without data."""
    import torch

    from hfexport.modeling.load import quiet

    with quiet(), torch.device("meta"):
        return model_class(config)  # type: ignore[no-any-return]
