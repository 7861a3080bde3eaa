"""LSTM layers for sequences of any length, exported as one ONNX operator.

`torch.export` unrolls `torch.nn.LSTM` for the length of its example: https://github.com/pytorch/pytorch/issues/115092.
Remove this when it keeps the layer as one operation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx_ir as ir
import torch

from hfexport._internal.upstream.torch_onnx_ops import call_op

__all__ = ["TRANSLATIONS", "lstm"]


def lstm(layers: torch.nn.LSTM, hidden_states: torch.Tensor) -> torch.Tensor:
    """Run unidirectional `layers` with biases on a sequence, starting from a zero state.

    Args:
        layers: LSTM module of torch.
        hidden_states: (sequence, batch, features).

    Returns:
        (sequence, batch, hidden).
    """
    for layer in range(layers.num_layers):
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        hidden_states = torch.ops.hfexport.lstm(hidden_states, *(getattr(layers, f"{name}_l{layer}") for name in names))
    return hidden_states


@torch.library.custom_op("hfexport::lstm", mutates_args=())
def _operator(
    hidden_states: torch.Tensor,
    from_input: torch.Tensor,
    from_hidden: torch.Tensor,
    input_bias: torch.Tensor,
    hidden_bias: torch.Tensor,
) -> torch.Tensor:
    """Run one layer. Weights have torch's layout, with gates in the order input, forget, cell, output.

    Args:
        hidden_states: (sequence, batch, features).
        from_input: (4 * hidden, features).
        from_hidden: (4 * hidden, hidden).
        input_bias: (4 * hidden,).
        hidden_bias: (4 * hidden,).

    Returns:
        (sequence, batch, hidden).
    """
    start = hidden_states.new_zeros(1, hidden_states.shape[1], from_hidden.shape[1])
    weights = [from_input, from_hidden, input_bias, hidden_bias]
    outputs: torch.Tensor = torch.lstm(hidden_states, [start, start], weights, True, 1, 0.0, False, False, False)[0]
    return outputs


@_operator.register_fake
def _shape(hidden_states: torch.Tensor, from_input: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
    del weights
    return hidden_states.new_empty(*hidden_states.shape[:2], from_input.shape[0] // 4)


def _to_onnx(
    hidden_states: ir.Value,
    from_input: ir.Value,
    from_hidden: ir.Value,
    input_bias: ir.Value,
    hidden_bias: ir.Value,
) -> ir.Value:
    """Translate to ONNX: gates in the order input, output, forget, cell; weights with a leading direction axis."""
    assert from_hidden.shape is not None
    hidden = from_hidden.shape[1]
    assert isinstance(hidden, int), "weights have fixed sizes"
    rows = [gate * hidden + row for gate in (0, 3, 1, 2) for row in range(hidden)]
    (order,) = call_op("Constant", value_ints=rows)
    (front,) = call_op("Constant", value_ints=[0])

    def reordered(weight: ir.Value) -> ir.Value:
        (gates,) = call_op("Gather", weight, order, axis=0)
        return gates

    def one_direction(weight: ir.Value) -> ir.Value:
        (directed,) = call_op("Unsqueeze", weight, front)
        return directed

    (biases,) = call_op("Concat", reordered(input_bias), reordered(hidden_bias), axis=0)
    weights = [one_direction(weight) for weight in (reordered(from_input), reordered(from_hidden), biases)]
    (outputs,) = call_op("LSTM", hidden_states, *weights, hidden_size=hidden)
    (direction,) = call_op("Constant", value_ints=[1])
    (given,) = call_op("Squeeze", outputs, direction)
    return given


TRANSLATIONS: Mapping[Any, Callable[..., Any]] = {torch.ops.hfexport.lstm.default: _to_onnx}
