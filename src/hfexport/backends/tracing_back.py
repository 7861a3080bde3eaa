"""Find the tensor of the checkpoint that fills each weight of a captured graph, and prove it by comparing the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hfexport.backends.origins import NUMPY_DTYPES, Origin, Origins, in_dtype
from hfexport.backends.tensors import tensor_bytes
from hfexport.checkpoint.safetensors_header import stored_tensors

if TYPE_CHECKING:
    import torch

    from hfexport.backends.base import ExportJob
    from hfexport.backends.origins import StoredWeight
    from hfexport.backends.tensors import Tensors
    from hfexport.checkpoint.stored import StoredTensor

__all__ = ["find_origins"]

MAX_CONSTANT_BYTES: Final = 2**20
"""Largest tensor that is not in the checkpoint, such as a table of positions, to store with the template."""

COMPARED_ELEMENTS: Final = 2**14


def find_origins(
    job: ExportJob, key: str, weights: Sequence[StoredWeight], tensors: Sequence[Tensors]
) -> Origins | None:
    """Return the origin of every weight; `None` if one is neither in the checkpoint as it is nor small.

    Args:
        job: the export.
        key: key of the template.
        weights: weights of the template.
        tensors: tensors of each graph in the file.
    """
    stored = {tensor.name: tensor for path in job.checkpoint.glob("*.safetensors") for tensor in stored_tensors(path)}
    names = _Names(job, stored)
    found = []
    for weight in weights:
        origin = _origin(weight, tensors[weight.branch].get(weight.tensor), names, stored)
        if origin is None:
            return None
        found.append(origin)
    return Origins(job.config.graph, job.config.task.name, key, tuple(found))


def _origin(
    weight: StoredWeight, tensor: torch.Tensor | None, names: _Names, stored: Mapping[str, StoredTensor]
) -> Origin | None:
    if tensor is None:
        return Origin("", _turned(weight) if weight.transposed else weight.constant)
    for name in names.of(weight.tensor):
        if _same(stored[name], tensor, weight.data_type):
            return Origin(name)
    return Origin("", _turned_bytes(tensor, weight)) if tensor.nbytes <= MAX_CONSTANT_BYTES else None


def _turned_bytes(tensor: torch.Tensor, weight: StoredWeight) -> bytes:
    return tensor_bytes(tensor.t() if weight.transposed else tensor, weight.data_type)


def _turned(weight: StoredWeight) -> bytes:
    """Return a constant in the layout of the graph, which expects its transpose."""
    matrix = np.frombuffer(weight.constant, NUMPY_DTYPES[weight.data_type]).reshape(tuple(reversed(weight.shape)))
    return np.ascontiguousarray(matrix.T).tobytes()


def _same(stored: StoredTensor, tensor: torch.Tensor, data_type: int) -> bool:
    """Compare the first and the last elements; validation of the artifact compares all of them."""
    if stored.shape != tuple(tensor.shape) or data_type not in NUMPY_DTYPES:
        return False
    flat, data = tensor.detach().reshape(-1), stored.read().reshape(-1)
    for part in (slice(None, COMPARED_ELEMENTS), slice(-COMPARED_ELEMENTS, None)):
        found = in_dtype(np.ascontiguousarray(data[part]), stored.dtype, NUMPY_DTYPES[data_type])
        if found.tobytes() != tensor_bytes(flat[part], data_type):
            return False
    return True


class _Names:
    """Names of the checkpoint's tensors, by the name of the weight that they are loaded into."""

    def __init__(self, job: ExportJob, stored: Mapping[str, StoredTensor]) -> None:
        from hfexport._internal.upstream.models import loader_renaming
        from hfexport.modeling.load import model_without_data

        model: Any = model_without_data(job.config, job.dtype)
        wanted = model.state_dict()
        rename = loader_renaming(model)
        self._stored = {name if name in wanted else rename(name, wanted): name for name in stored}
        self._tied: dict[str, list[str]] = {}
        for one, other in model.all_tied_weights_keys.items():
            self._tied.setdefault(one, []).append(other)
            self._tied.setdefault(other, []).append(one)

    def of(self, weight: str) -> Iterator[str]:
        """Yield names of tensors that may fill a weight.

        In the graph's module the weight may have fewer first parts in its name than in the model (a half of an
        encoder-decoder), or more (a pooling around the model).
        """
        for name in self._stored:
            if _alike(name, weight):
                yield self._stored[name]
        for name, others in self._tied.items():
            if _alike(name, weight):
                yield from (self._stored[other] for other in others if other in self._stored)


def _alike(one: str, other: str) -> bool:
    """Return whether two names are equal, or one is the other with further parts in front."""
    return one == other or one.endswith(f".{other}") or other.endswith(f".{one}")
