"""Functions of models that keep the length they are traced at, replaced while a back end runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

__all__ = ["model_patches"]


@contextmanager
def model_patches(model_type: str) -> Iterator[None]:
    """All patches for models of a `model_type`."""
    with ExitStack() as stack:
        if model_type == "longt5":
            stack.enter_context(_blocks_of_any_number())
        yield


@contextmanager
def _blocks_of_any_number() -> Iterator[None]:
    """Have LongT5 cut a sequence of any length into blocks.

    It looks whether the length is a multiple of the block's and pads only if it is not, which a trace takes as settled:
    https://github.com/huggingface/transformers/issues/18243. This can go when it pads by a length that may be 0.
    """
    from transformers.models.longt5 import modeling_longt5

    original = modeling_longt5._split_into_blocks
    modeling_longt5._split_into_blocks = _split_into_blocks
    try:
        yield
    finally:
        modeling_longt5._split_into_blocks = original


def _split_into_blocks(x: torch.Tensor, block_len: int, dim: int) -> torch.Tensor:
    """(..., sequence, ...) as (..., blocks, block_len, ...), filled up with zeros."""
    axis = dim % x.ndim
    missing = -x.shape[axis] % block_len
    widths = [0, 0] * (x.ndim - axis - 1) + [0, missing]
    blocks: torch.Tensor = torch.nn.functional.pad(x, widths).unflatten(axis, (-1, block_len))
    return blocks
