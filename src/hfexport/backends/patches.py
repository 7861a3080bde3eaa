"""Functions of models that keep the length they are traced at, replaced while a back end runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any

import torch

__all__ = ["model_patches"]


@contextmanager
def model_patches(model_type: str) -> Iterator[None]:
    """All patches for models of a `model_type`."""
    with ExitStack() as stack:
        if model_type == "longt5":
            from transformers.models.longt5 import modeling_longt5

            stack.enter_context(_replaced(modeling_longt5, "_split_into_blocks", _split_into_blocks))
            stack.enter_context(_replaced(modeling_longt5, "_create_global_aggregates", _sum_blocks))
        yield


@contextmanager
def _replaced(module: ModuleType, name: str, function: Callable[..., Any]) -> Iterator[None]:
    original = getattr(module, name)
    setattr(module, name, function)
    try:
        yield
    finally:
        setattr(module, name, original)


def _split_into_blocks(x: torch.Tensor, block_len: int, dim: int) -> torch.Tensor:
    """(..., sequence, ...) as (..., blocks, block_len, ...), filled up with zeros.

    LongT5's own looks whether the length is a multiple of the block's and pads only if it is not, which a trace takes as
    settled: https://github.com/huggingface/transformers/issues/18243. This can go when it pads by a length that may be 0.
    """
    axis = dim % x.ndim
    missing = -x.shape[axis] % block_len
    widths = [0, 0] * (x.ndim - axis - 1) + [0, missing]
    blocks: torch.Tensor = torch.nn.functional.pad(x, widths).unflatten(axis, (-1, block_len))
    return blocks


def _sum_blocks(hidden_states: torch.Tensor, block_ids: torch.Tensor, global_seq_len: int) -> torch.Tensor:
    """Sum (batch, sequence, hidden) over each block: (batch, blocks, hidden). Tokens of no block have the id -1.

    LongT5's own tells blocks apart by `one_hot`, whose number of classes `torch.export` takes as settled:
    https://github.com/pytorch/pytorch/pull/169436. This can go when that number may be free.
    """
    blocks = torch.arange(global_seq_len, device=block_ids.device)
    belongs = (block_ids[:, None, :] == blocks[:, None]).to(hidden_states.dtype)
    return belongs @ hidden_states
