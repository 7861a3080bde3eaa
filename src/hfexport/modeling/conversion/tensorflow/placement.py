"""Match TensorFlow weights and the parameters of a PyTorch model one to one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from hfexport._internal.upstream.models import loader_renaming
from hfexport.checkpoint.stored import StoredTensor, same_data
from hfexport.errors import CheckpointError
from hfexport.modeling.conversion.tensorflow.naming import axes_order, pytorch_name
from hfexport.modeling.conversion.tensorflow.rules import Rules

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

__all__ = ["Placed", "place"]

_REMEDY: Final = (
    "Check that config.json belongs to these weights. If it does, load them with transformers 4 and TensorFlow, and save"
    " the model as PyTorch safetensors."
)
_COUNTERS: Final = ".num_batches_tracked"
"""Suffix of the counters of a batch norm's training steps, which TensorFlow lacks and inference does not use."""


@dataclass(frozen=True)
class Placed:
    """Result of matching weights with a model.

    Attributes:
        tensors: tensors with their names in a PyTorch checkpoint of transformers 4.
        left_out: TensorFlow names of weights that the PyTorch model is known not to use.
        untied: whether weights that config.json ties have different values, which TensorFlow classes allow.
    """

    tensors: tuple[StoredTensor, ...]
    left_out: tuple[str, ...]
    untied: bool


def place(stored: Sequence[StoredTensor], model: torch.nn.Module, rules: Rules) -> Placed:
    """Match TensorFlow weights with a model.

    Args:
        stored: weights with their TensorFlow names.
        model: model of transformers, with or without data, of the class that the weights were saved from.
        rules: rules of the architecture.

    Raises:
        CheckpointError: a weight has no parameter, a parameter has no weight or two, or a shape differs.
    """
    wanted: dict[str, Any] = dict(model.state_dict())
    found: dict[str, tuple[StoredTensor, str]] = {}
    left_out: list[str] = []
    renamed = _loader_renaming(model, wanted)
    for tensor in stored:
        name = rules.rename(pytorch_name(tensor.name))
        target = renamed(name)
        if target not in wanted and rules.leaves_out(name):
            left_out.append(tensor.name)
        elif target in found:
            raise CheckpointError(
                f"weights {found[target][0].name} and {tensor.name} both belong at {target}", remedy=_REMEDY
            )
        else:
            found[target] = (tensor, name)
    _refuse_strays(found, wanted)
    _refuse_gaps(model, found, wanted)
    placed = {target: _laid_out(tensor, name, tuple(wanted[target].shape)) for target, (tensor, name) in found.items()}
    untied = _drop_copies(model, placed)
    counters = [_zero(name) for name in wanted if name.endswith(_COUNTERS) and name not in found]
    return Placed((*placed.values(), *counters), tuple(sorted(left_out)), untied)


def _loader_renaming(model: Any, wanted: Mapping[str, Any]) -> Callable[[str], str]:
    """Return the function by which `from_pretrained` will rename a weight for this model.

    It is no public interface of transformers, whose version is pinned.
    """
    renamed = loader_renaming(model)
    return lambda name: renamed(name, wanted)


def _refuse_strays(found: Mapping[str, tuple[StoredTensor, str]], wanted: Mapping[str, Any]) -> None:
    strays = [tensor.name for target, (tensor, _) in found.items() if target not in wanted]
    if strays:
        raise CheckpointError(f"the model has no place for {_listed(strays)}", remedy=_REMEDY)


def _refuse_gaps(model: Any, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Check that every parameter has a weight or is tied to a parameter that has one."""
    tied: Mapping[str, str] = model.all_tied_weights_keys
    given = {*found, *(name for name, source in tied.items() if source in found)}
    given |= {source for name, source in tied.items() if name in found}
    gaps = [name for name in wanted if name not in given and not name.endswith(_COUNTERS)]
    if gaps:
        raise CheckpointError(f"no weight was found for {_listed(gaps)} of the model", remedy=_REMEDY)


def _drop_copies(model: Any, placed: dict[str, StoredTensor]) -> bool:
    """Remove duplicates of tied weights; if any of them differ, keep all and return true.

    Some TensorFlow classes (MobileBERT, Speech2Text) have a separate weight where PyTorch ties it to the embeddings.
    """
    tied: Mapping[str, str] = model.all_tied_weights_keys
    pairs = [(name, source) for name, source in tied.items() if name in placed and source in placed]
    copies = [name for name, source in pairs if same_data(placed[name], placed[source])]
    if len(copies) == len(pairs):
        for name in copies:
            del placed[name]
        return False
    # The model ties all pairs or none, so the equal ones also have to be stored under each name.
    for name, source in tied.items():
        if name not in placed:
            placed[name] = replace(placed[source], name=name)
    return True


def _laid_out(tensor: StoredTensor, name: str, shape: tuple[int, ...]) -> StoredTensor:
    """Return the tensor with its new name and PyTorch's order of axes; only axes of size 1 may be added or removed."""
    order = axes_order(tensor.name, len(tensor.shape)) or tuple(range(len(tensor.shape)))
    ordered = tuple(tensor.shape[axis] for axis in order)
    if [size for size in ordered if size != 1] != [size for size in shape if size != 1]:
        raise CheckpointError(
            f"weight {tensor.name} has shape {tensor.shape}, in PyTorch's order {ordered}; the model asks for {shape}",
            remedy=_REMEDY,
        )
    return StoredTensor(name, tensor.dtype, shape, partial(_read_laid_out, tensor, order, shape))


def _read_laid_out(tensor: StoredTensor, order: Sequence[int], shape: tuple[int, ...]) -> NDArray[Any]:
    return tensor.read().transpose(order).reshape(shape)


def _zero(name: str) -> StoredTensor:
    import numpy as np

    return StoredTensor(name, "I64", (), lambda: np.zeros((), np.int64))


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - 5} more" if len(ordered) > 5 else ""
    return ", ".join(ordered[:5]) + more
