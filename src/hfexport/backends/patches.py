"""Functions of models that keep the length or the values they are traced with, replaced while a back end runs."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import ExitStack, contextmanager
from types import MappingProxyType, ModuleType
from typing import Any, Final

import torch

from hfexport._internal.upstream.models import replaced_part

__all__ = ["model_patches", "model_translations"]

_LOOK_FOR_OVERFLOW: Final = frozenset(
    {
        *("bart", "bigbird_pegasus", "blenderbot-small", "marian", "mvp", "plbart"),
        *("autoformer", "informer", "time_series_transformer"),
        *("conditional_detr", "detr", "table-transformer"),
    }
)
"""Model types whose encoder, in half precision, clamps its states where it finds that one of them overflowed."""

_SCAN: Final = frozenset({"falcon_mamba", "jamba", "mamba"})
"""Model types with a `mamba_selective_scan`."""

_TRANSLATED: Final[Mapping[str, str]] = MappingProxyType({**dict.fromkeys(_SCAN, "selective_scan"), "encodec": "lstm"})
"""By model type: the module of `traceable` whose operators have no translation but their own."""


@contextmanager
def model_patches(model_type: str) -> Iterator[None]:
    """All patches for models of a `model_type`."""
    with ExitStack() as stack:
        if model_type in _LOOK_FOR_OVERFLOW:
            stack.enter_context(_replaced(torch, "isfinite", _Overflowing))
        if model_type in _SCAN:
            from hfexport.modeling.traceable.selective_scan import selective_scan

            stack.enter_context(replaced_part(model_type, "mamba_selective_scan", selective_scan))
        if model_type == "longt5":
            stack.enter_context(replaced_part(model_type, "_split_into_blocks", _split_into_blocks))
            stack.enter_context(replaced_part(model_type, "_create_global_aggregates", _sum_blocks))
        if model_type == "moonshine":
            lengths = "MoonshinePreTrainedModel._get_feat_extract_output_lengths"
            stack.enter_context(replaced_part(model_type, lengths, _states_of))
        if model_type == "rt_detr":
            from transformers.models.rt_detr import modeling_rt_detr

            stack.enter_context(_replaced(modeling_rt_detr, "len", _length))
        yield


def model_translations(model_type: str) -> Mapping[Any, Callable[..., Any]]:
    """How to write in ONNX the operators that patches for models of a `model_type` put in, by operator."""
    module = _TRANSLATED.get(model_type)
    return {} if module is None else importlib.import_module(f"hfexport.modeling.traceable.{module}").TRANSLATIONS


@contextmanager
def _replaced(module: ModuleType | type, name: str, function: Callable[..., Any]) -> Iterator[None]:
    own = vars(module).get(name)
    setattr(module, name, function)
    try:
        yield
    finally:
        if own is None:
            delattr(module, name)  # a builtin shows through again
        else:
            setattr(module, name, own)


class _Overflowing:
    """In the place of `torch.isfinite(states)`: not all of them are, so that the model clamps them, whatever they are.

    It looks at them first, which `torch.export` cannot follow and a trace takes as settled. Clamping always differs only
    in the last 1.5 % of the range. This can go when the models clamp as T5 does:
    https://github.com/huggingface/transformers/blob/main/src/transformers/models/t5/modeling_t5.py
    """

    def __init__(self, states: torch.Tensor) -> None:
        del states

    def all(self) -> bool:
        return False


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


def _length(of: Sized) -> Any:
    """`len`, but the size of a tensor's first axis may stay free.

    RT-DETR takes its batch size by `len`, which Python allows to be an `int` only. This can go when it asks for the shape.
    """
    return of.shape[0] if isinstance(of, torch.Tensor) else len(of)


def _states_of(encoder: object, samples: Any) -> Any:
    """States that Moonshine's encoder makes of so many samples, in whole numbers.

    Its own divides and rounds by `int`, which `torch.export` and a trace take as settled; optimum-onnx replaces it as well:
    https://github.com/huggingface/optimum-onnx/blob/main/optimum/exporters/onnx/model_patcher.py. This can go when it
    divides by `//`.
    """
    del encoder
    return (((samples - 127) // 64 + 1 - 7) // 3 + 1 - 3) // 2 + 1
