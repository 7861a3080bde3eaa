"""Dynamic quantisation of linear layers by `torch.ao.quantization`: integer weights, activations quantised in each call.

Processors without VNNI add pairs of products of 8-bit numbers in 16 bits. torch avoids an overflow by 7 bits for
activations (`reduce_range`), which costs most of the accuracy. Here activations have 8 bits and weights 7: they lose less,
since they have a scale for each output, and no sum overflows either.

https://docs.pytorch.org/docs/stable/quantization.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.ao.nn.quantized import dynamic
from torch.ao.quantization import PerChannelMinMaxObserver, QConfig, per_channel_dynamic_qconfig
from transformers.pytorch_utils import Conv1D

if TYPE_CHECKING:
    from hfexport.modeling.load import FlatModel

__all__ = ["LARGEST", "SMALLEST", "DynamicLinear", "quantise_linears"]

SMALLEST: Final = 1024
"""Number of elements below which a weight is not quantised: it takes little space, and quantising it may cost accuracy."""

LARGEST: Final = 64
"""Largest absolute value of an integer weight: two products with 255 fit into 16 bits."""


class DynamicLinear(dynamic.Linear):
    """Linear layer with integer weights whose `weight` and `bias` are tensors, as models expect that read them.

    The base class has methods of these names, and gives activations 7 bits.
    """

    __jit_unused_properties__ = ("weight", "bias")

    @property
    def weight(self) -> torch.Tensor:  # type: ignore[override]
        """Return the weights in float32."""
        weight: torch.Tensor = self._weight_bias()[0].dequantize()
        return weight

    @property
    def bias(self) -> torch.Tensor | None:  # type: ignore[override]
        """Return the bias."""
        bias: torch.Tensor | None = self._weight_bias()[1]
        return bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer to activations of 8 bits."""
        y: torch.Tensor = torch.ops.quantized.linear_dynamic(x, self._packed_params._packed_params, reduce_range=False)
        return y.to(x.dtype)


def _settings() -> QConfig:
    """Return symmetric weights of 7 bits with a scale for each output."""
    weight = PerChannelMinMaxObserver.with_args(
        dtype=torch.qint8, qscheme=torch.per_channel_symmetric, quant_min=-LARGEST, quant_max=LARGEST - 1
    )
    return QConfig(activation=per_channel_dynamic_qconfig.activation, weight=weight)


@torch.no_grad()
def quantise_linears(flat: FlatModel, example: Mapping[str, torch.Tensor]) -> None:
    """Replace the linear layers that a model calls by those with integer weights, with a scale for each output.

    Args:
        flat: model, changed in place.
        example: inputs by name, for a call that shows which layers are called.
    """
    for parent, name, layer in _places(flat, Conv1D):
        setattr(parent, name, _as_linear(layer))
    called: set[torch.nn.Module] = set()
    hooks = [
        layer.register_forward_pre_hook(lambda module, _: called.add(module))
        for _, _, layer in _places(flat, torch.nn.Linear)
    ]
    flat(*(tensor.clone() for tensor in example.values()))
    for hook in hooks:
        hook.remove()
    made: dict[torch.nn.Module, torch.nn.Module] = {}
    for parent, name, layer in _places(flat, torch.nn.Linear):
        if layer in called and layer.weight.numel() >= SMALLEST and type(layer).forward is torch.nn.Linear.forward:
            if layer not in made:
                layer.qconfig = _settings()
                made[layer] = DynamicLinear.from_float(layer)
            setattr(parent, name, made[layer])


def _places(model: torch.nn.Module, kind: type[torch.nn.Module]) -> list[tuple[torch.nn.Module, str, Any]]:
    """Return the parent, the name and the module of each submodule of a class."""
    return [
        (parent, name, module)
        for parent in model.modules()
        for name, module in parent.named_children()
        if isinstance(module, kind)
    ]


def _as_linear(layer: Any) -> torch.nn.Linear:
    """Return the linear layer that equals a `Conv1D`, whose weight is transposed."""
    rows, columns = layer.weight.shape
    linear = torch.nn.Linear(rows, columns, device="meta")
    linear.weight = torch.nn.Parameter(layer.weight.t(), requires_grad=False)
    linear.bias = layer.bias
    return linear
