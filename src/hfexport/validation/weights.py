"""Check every stored tensor of an artifact bit for bit against the tensors of its model.

Probes cannot read every row of an embedding. So the reference process hashes each tensor of the loaded model, the
runner hashes each tensor that the artifact stores, and both lists are compared by name. A matrix may be stored
transposed; probes show whether the graph uses it correctly. Standard library and numpy; torch and onnx are imported
where they are needed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch

__all__ = [
    "WEIGHTS_FILE",
    "Proof",
    "Stored",
    "hash_model",
    "hash_onnx",
    "hash_torchscript",
    "prove",
    "read_hashes",
    "write_hashes",
]

WEIGHTS_FILE: Final = "weights.json"
"""File name of the hashes, which the reference and the runner write beside the outputs."""

LEAST_ELEMENTS: Final = 1024
"""Number of elements below which a stored tensor that is not a weight may be a constant of any size."""

_BLOCK_BYTES: Final = 2**24


@dataclass(frozen=True)
class Stored:
    """A stored tensor: shape, size in bytes and SHA-256, and the SHA-256 of its transpose if it is a matrix."""

    shape: tuple[int, ...]
    size_bytes: int
    digest: str
    transposed: str = ""
    is_weight: bool = True

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "shape": list(self.shape)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Stored:
        return cls(**{**values, "shape": tuple(values["shape"])})


@dataclass(frozen=True)
class Proof:
    """Result of comparing an artifact's stored tensors.

    Attributes:
        proved_bytes: bytes of tensors that are equal to the model's.
        constants: stored tensors that are not in the model, with their sizes in bytes, largest first.
        problems: tensors that differ, one sentence each.
    """

    proved_bytes: int
    constants: tuple[tuple[str, int], ...]
    problems: tuple[str, ...]


def hash_model(model: torch.nn.Module) -> dict[str, Stored]:
    """Hash the parameters, buffers and other tensors of a model by name; a tensor with several names is hashed once."""
    kept = set(model.state_dict(keep_vars=True))
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    seen: dict[tuple[int, tuple[int, ...], tuple[int, ...]], Stored] = {}
    hashes = {}
    for name, tensor in named:
        key = (tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()))
        if key not in seen or not tensor.numel():
            turned = _digest(tensor.t()) if tensor.ndim == 2 else ""
            seen[key] = Stored(tuple(tensor.shape), tensor.nbytes, _digest(tensor), turned, name in kept)
        hashes[name] = seen[key]
    for name, tensor in _attributes(model):
        hashes[name] = Stored(tuple(tensor.shape), tensor.nbytes, _digest(tensor))
    return hashes


def _attributes(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield tensors that are plain attributes of modules, such as the sinusoidal positions of VideoMAE.

    `from_pretrained` does not convert them, but the model may when it is called. So each is also yielded in the dtype of
    the model. The names are no names of weights, because an artifact may hold either.
    """
    import torch

    floating = (weight.dtype for weight in model.parameters() if weight.is_floating_point())
    dtype = next(floating, torch.float32)
    for place, module in model.named_modules():
        for short, tensor in vars(module).items():
            if isinstance(tensor, torch.Tensor) and tensor.numel() > 1:
                yield f"attribute {short} of {place}", tensor
                if tensor.is_floating_point():
                    yield f"attribute {short} of {place} in {dtype}", tensor.to(dtype)


def _digest(tensor: torch.Tensor) -> str:
    """Hash the elements of a tensor in row-major order, a block of rows at a time."""
    import torch

    found = hashlib.sha256()
    if not tensor.numel():
        return found.hexdigest()
    rows = tensor.detach().reshape(1, -1) if tensor.ndim < 2 else tensor.detach()
    step = max(1, _BLOCK_BYTES // max(1, rows[0].numel() * rows.element_size()))
    for start in range(0, len(rows), step):
        block = rows[start : start + step].contiguous()
        found.update(block.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def hash_torchscript(module: Any) -> dict[str, Stored]:
    """Hash the tensors of a loaded TorchScript module: parameters, buffers, and constants of its code."""
    hashes = {name.removeprefix("model."): stored for name, stored in hash_model(module).items()}
    for number, constant in enumerate(_code_constants(module)):
        digest = _digest(constant)
        hashes[f"constant {number} of the code"] = Stored(tuple(constant.shape), constant.nbytes, digest)
    return hashes


def _code_constants(module: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors with more than one element that a module's code contains."""
    from hfexport._internal.upstream.torch_core import graphs_of

    for submodule in module.modules():
        for graph in graphs_of(submodule):
            for node in graph.findAllNodes("prim::Constant", recurse=True):
                if node.hasAttribute("value") and node.kindOf("value") == "t" and node.t("value").numel() > 1:
                    yield node.t("value")


def hash_onnx(path: Path) -> dict[str, Stored]:
    """Hash the tensors of an ONNX file: initializers and constants of all graphs, external data included.

    Weights are read a block at a time, wherever they are stored.

    Raises:
        ValidationError: the file is not an ONNX model.
    """
    from hfexport.validation.mapped_onnx import read_mapped

    model = read_mapped(path)
    hashes: dict[str, Stored] = {}
    for name, tensor in _tensors(model.graph):
        if prod(tensor.dims) > 1:
            digest, size_bytes = _tensor_digest(tensor, path.parent)
            hashes[name if name not in hashes else f"{name} ({len(hashes)})"] = Stored(
                tuple(tensor.dims), size_bytes, digest
            )
    return hashes


def _tensors(graph: Any) -> Iterator[tuple[str, Any]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield f"constant {node.output[0] if node.output else node.name}", attribute.t
            for inner in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _tensors(inner)


def _tensor_digest(tensor: Any, folder: Path) -> tuple[str, int]:
    """Return the SHA-256 and the size of a tensor's bytes, which may be in a file beside the graph."""
    import onnx

    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        place = {entry.key: entry.value for entry in tensor.external_data}
        found, left = hashlib.sha256(), int(place.get("length", 0))
        size_bytes = left
        with Path(folder, place["location"]).open("rb") as data:
            data.seek(int(place.get("offset", 0)))
            while left and (block := data.read(min(left, _BLOCK_BYTES))):
                found.update(block)
                left -= len(block)
        return found.hexdigest(), size_bytes
    content = tensor.raw_data or onnx.numpy_helper.to_array(tensor).tobytes()
    return hashlib.sha256(content).hexdigest(), len(content)


def write_hashes(hashes: Mapping[str, Stored], folder: Path) -> None:
    """Write hashes into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps({name: stored.to_dict() for name, stored in hashes.items()})
    (folder / WEIGHTS_FILE).write_text(content, encoding="utf-8")


def read_hashes(folder: Path) -> dict[str, Stored] | None:
    """Read the hashes that `write_hashes` wrote; `None` if there are none."""
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    return {name: Stored.from_dict(values) for name, values in content.items()}


def prove(found: Mapping[str, Stored], models: Sequence[Mapping[str, Stored]], graphs: Sequence[str]) -> Proof:
    """Compare the tensors of an artifact with those of the model.

    A stored tensor with the name of a weight must equal that weight. Any other must equal some tensor of the model, or
    is a constant. A constant with as many elements as a weight could replace it, and is a problem.

    Args:
        found: tensors of the artifact.
        models: tensors of the model, for each graph of the artifact.
        graphs: names of those graphs, which prefix the second of two tensors with the same name.
    """
    known = {name: stored for hashes in reversed(models) for name, stored in hashes.items()}
    digests = {digest for stored in known.values() for digest in (stored.digest, stored.transposed) if digest}
    weights = {prod(stored.shape): name for name, stored in known.items() if stored.is_weight}
    proved, constants, problems = 0, [], []
    for name, stored in found.items():
        wanted = _wanted(name, models, graphs, known)
        if wanted is not None and stored.digest in (wanted.digest, wanted.transposed):
            proved += stored.size_bytes
        elif wanted is not None and prod(wanted.shape) == prod(stored.shape):
            problems.append(f"stored tensor {name} is not the model's weight of that name, bit for bit")
        elif stored.digest in digests:
            proved += stored.size_bytes
        elif prod(stored.shape) >= LEAST_ELEMENTS and prod(stored.shape) in weights:
            other = weights[prod(stored.shape)]
            problems.append(f"stored tensor {name} is no tensor of the model, and could replace {other}")
        else:
            constants.append((name, stored.size_bytes))
    return Proof(proved, tuple(sorted(constants, key=lambda one: -one[1])), tuple(problems))


def _wanted(
    name: str, models: Sequence[Mapping[str, Stored]], graphs: Sequence[str], known: Mapping[str, Stored]
) -> Stored | None:
    for graph, hashes in zip(graphs, models, strict=True):
        if (short := name.removeprefix(f"{graph}.")) != name and short in hashes:
            return hashes[short]
    return known.get(name)
