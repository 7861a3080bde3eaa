"""Weights and buffers that have another dtype than the rest of their model."""

from __future__ import annotations

from collections.abc import Iterator

import torch

__all__ = ["convert_routers", "keep_dtypes"]


def convert_routers(model: torch.nn.Module) -> None:
    """Convert the classifiers of routers to the dtype that they compute in.

    Switch Transformers and NLLB-MoE do so when they are called. An artifact stores the converted weights, so a model
    that was not called yet must have them too.
    """
    for module in model.modules():
        classifier, dtype = getattr(module, "classifier", None), getattr(module, "dtype", None)
        if type(module).__name__.endswith("Router") and isinstance(classifier, torch.nn.Module) and dtype is not None:
            classifier.to(dtype)


def keep_dtypes(model: torch.nn.Module, loaded: torch.nn.Module) -> None:
    """Give the weights and buffers of a model on the meta device the dtypes of the loaded ones.

    `from_pretrained` keeps some of them in float32, such as `wo` of T5 and the correction bias of DeepSeek's routers; a
    constructor does not.
    """
    dtypes = {name: tensor.dtype for name, tensor in _named_tensors(loaded)}
    for name, tensor in list(_named_tensors(model)):
        if (dtype := dtypes.get(name, tensor.dtype)) == tensor.dtype:
            continue
        owner, _, short = name.rpartition(".")
        kept = torch.empty_like(tensor, dtype=dtype)
        if isinstance(tensor, torch.nn.Parameter):
            kept = torch.nn.Parameter(kept, requires_grad=tensor.requires_grad)
        setattr(model.get_submodule(owner), short, kept)


def _named_tensors(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the parameters and buffers of a model with their names, each once."""
    yield from model.named_parameters()
    yield from model.named_buffers()
