"""Patches for functions of models that fix a length or a value during capture or tracing."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import ExitStack, contextmanager
from types import MappingProxyType, ModuleType
from typing import Any, Final

import torch

from hfexport._internal.upstream.models import replaced_part

__all__ = ["model_patches", "model_translations", "model_types"]

_LOOK_FOR_OVERFLOW: Final = frozenset(
    {
        *("bart", "bigbird_pegasus", "blenderbot-small", "marian", "mvp", "plbart"),
        *("autoformer", "informer", "time_series_transformer"),
        *("conditional_detr", "detr", "table-transformer"),
        *("led", "longt5", "nllb-moe", "pix2struct", "pix2struct_text_model"),
    }
)
"""Model types that clamp half-precision states if one of them overflowed."""

_SCAN: Final = frozenset({"falcon_mamba", "jamba", "mamba"})
"""Model types with a `mamba_selective_scan`."""

_TRANSLATED: Final[Mapping[str, str]] = MappingProxyType({**dict.fromkeys(_SCAN, "selective_scan"), "encodec": "lstm"})
"""Module of `traceable` with the translations of its own operators, by model type."""


def model_types(config: Any) -> tuple[str, ...]:
    """Return the `model_type` of a model's config, and those of the models within it, such as its text model."""
    inner = (getattr(value, "model_type", None) for value in vars(config).values())
    return tuple(dict.fromkeys([str(config.model_type), *(name for name in inner if isinstance(name, str))]))


@contextmanager
def model_patches(model_type: str, *inner: str) -> Iterator[None]:
    """Apply all patches for models of a `model_type` that contain models of the types `inner`."""
    with ExitStack() as stack:
        if not _LOOK_FOR_OVERFLOW.isdisjoint((model_type, *inner)):
            stack.enter_context(_replaced(torch, "isfinite", _Overflowing))
            stack.enter_context(_replaced(torch, "isinf", _Overflowing))
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
    """Return ONNX translations of the operators that patches for a `model_type` insert."""
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
            delattr(module, name)  # the builtin is visible again
        else:
            setattr(module, name, own)


class _Overflowing:
    """Replacement of `torch.isfinite` and `torch.isinf` that reports an overflow, so that a model always clamps states.

    The model's check cannot be captured by `torch.export`, and a trace records its result as a constant. Always
    clamping differs only in the last 1.5 % of the range. This can go when the models clamp as T5 does:
    https://github.com/huggingface/transformers/blob/main/src/transformers/models/t5/modeling_t5.py
    """

    def __init__(self, states: torch.Tensor) -> None:
        del states

    def all(self) -> bool:
        return False

    def any(self) -> bool:
        return True


def _split_into_blocks(x: torch.Tensor, block_len: int, dim: int) -> torch.Tensor:
    """Reshape (..., sequence, ...) to (..., blocks, block_len, ...), padded with zeros.

    LongT5's function pads only if the length is not a multiple of the block length, and a trace records that check as a
    constant: https://github.com/huggingface/transformers/issues/18243. This can go when it pads by a length that may be
    0.
    """
    axis = dim % x.ndim
    missing = -x.shape[axis] % block_len
    widths = [0, 0] * (x.ndim - axis - 1) + [0, missing]
    blocks: torch.Tensor = torch.nn.functional.pad(x, widths).unflatten(axis, (-1, block_len))
    return blocks


def _sum_blocks(hidden_states: torch.Tensor, block_ids: torch.Tensor, global_seq_len: int) -> torch.Tensor:
    """Sum (batch, sequence, hidden) over each block: (batch, blocks, hidden). Tokens outside all blocks have id -1.

    LongT5's function uses `one_hot`, whose number of classes `torch.export` records as a constant:
    https://github.com/pytorch/pytorch/pull/169436. This can go when that number may be dynamic.
    """
    blocks = torch.arange(global_seq_len, device=block_ids.device)
    belongs = (block_ids[:, None, :] == blocks[:, None]).to(hidden_states.dtype)
    return belongs @ hidden_states


def _length(of: Sized) -> Any:
    """Return `len(of)`, or the dynamic size of a tensor's first axis.

    RT-DETR calls `len` for the batch size, which must return an `int`. This can go when it reads the shape.
    """
    return of.shape[0] if isinstance(of, torch.Tensor) else len(of)


def _states_of(encoder: object, samples: Any) -> Any:
    """Return the number of states of Moonshine's encoder for a number of samples, in integer arithmetic.

    The model's function divides and rounds with `int`, which capture and tracing record as a constant. optimum-onnx
    replaces it too:
    https://github.com/huggingface/optimum-onnx/blob/main/optimum/exporters/onnx/model_patcher.py. This can go when it
    divides with `//`.
    """
    del encoder
    return (((samples - 127) // 64 + 1 - 7) // 3 + 1 - 3) // 2 + 1
