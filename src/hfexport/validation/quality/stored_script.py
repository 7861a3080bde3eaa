"""Compare the weights of a TorchScript variant with those of the plain file: each must be that weight, possibly rounded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch

from hfexport.errors import ValidationError, first_line
from hfexport.validation.weights import hash_model, hash_torchscript

__all__ = ["compare_scripts"]

LARGE: Final = 1024
"""Number of elements from which a weight of the plain file has to be in the variant."""

_PACKED: Final = "LinearPackedParams"
_SLACK: Final = 1.02
_HALF_PRECISION: Final = 2e-3
_SMALL: Final = 1e-7


def compare_scripts(plain: Path, variant: Path) -> tuple[float, str, list[str]]:
    """Compare two files of the same graph.

    Weights and biases of quantised layers are compared with those of the same name, biases exactly. All others must be
    equal bit for bit, under any name, since freezing turns them into constants, or transposed. Kernels and vectors that freezing may fold are not.

    Returns:
        The largest error of a weight relative to what rounding allows, its name, and the names of missing weights.

    Raises:
        ValidationError: a file does not load.
    """
    expected, found = _load(plain), _load(variant)
    error, worst = 0.0, ""
    weights = dict(expected.named_parameters()) | dict(expected.named_buffers())
    seen = set()
    for layer, packed, bias in _quantised(found):
        pairs = [(f"{layer}.weight", _relative_error(weights.get(f"{layer}.weight"), packed))]
        if bias is not None and f"{layer}.bias" in weights:
            pairs.append(
                (f"{layer}.bias", 0.0 if torch.equal(weights[f"{layer}.bias"].float(), bias) else float("inf"))
            )
        for name, value in pairs:
            seen.add(name)
            if not value <= error:  # also for NaN
                error, worst = value, name
    stored = hash_torchscript(found).values()
    digests = {digest for one in stored for digest in (one.digest, one.transposed) if digest}
    missing = [
        name
        for name, one in hash_model(expected).items()
        if weights[name].is_floating_point()
        and weights[name].numel() >= LARGE
        and weights[name].ndim <= 2
        and name not in seen
        and one.digest not in digests
        and one.transposed not in digests
    ]
    return error, worst, sorted(missing)


def _load(path: Path) -> Any:
    try:
        return torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, OSError) as error:
        raise ValidationError(f"{path.name}: torch.jit.load cannot load it: {first_line(error)}") from error


def _quantised(module: Any) -> Iterator[tuple[str, torch.Tensor, torch.Tensor | None]]:
    """Yield the name of each quantised layer, its 8-bit weight, and its bias if it has one."""
    for name, part in module.named_modules():
        if getattr(part, "original_name", "") == _PACKED:
            weight, bias = torch.ops.quantized.linear_unpack(part._packed_params)
            yield name.rpartition(".")[0], weight, bias


def _relative_error(expected: torch.Tensor | None, packed: torch.Tensor) -> float:
    """Return the largest error relative to half a step of the layer's scales; the plain weight may be transposed."""
    if expected is None or expected.ndim != packed.ndim:
        return float("inf")
    alike = [one for one in (expected, expected.t()) if one.shape == packed.shape]
    return min((_error_in_steps(one.float(), packed) for one in alike), default=float("inf"))


def _error_in_steps(expected: torch.Tensor, packed: torch.Tensor) -> float:
    per_channel = packed.qscheme() == torch.per_channel_affine
    scales = packed.q_per_channel_scales()[:, None] if per_channel else torch.tensor(packed.q_scale())
    allowed = 0.5 * scales.float().abs() * _SLACK + _HALF_PRECISION * expected.abs() + _SMALL
    return float(((packed.dequantize() - expected).abs() / allowed).max())
