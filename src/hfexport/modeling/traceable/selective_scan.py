"""Mamba's recurrence for any length: a loop in TorchScript, a `Scan` in ONNX.

The models run it in a Python loop, which a tracer unrolls for the traced length and `torch.export` then fixes:
https://github.com/pytorch/pytorch/issues/130150. Remove this when they use `torch._higher_order_ops.scan`, and its
lowering supports a free batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx_ir as ir
import torch

from hfexport._internal.upstream.torch_onnx_ops import call_op

__all__ = ["TRANSLATIONS", "selective_scan"]


def selective_scan(
    hidden_states: torch.Tensor,
    dt: torch.Tensor,
    rates: torch.Tensor,
    entering: torch.Tensor,
    leaving: torch.Tensor,
    *,
    D: torch.Tensor,  # noqa: N803 (the caller's name for it)
    z: torch.Tensor,
    delta_bias: torch.Tensor,
    **flags: bool,
) -> torch.Tensor:
    """Replace `mamba_selective_scan` of transformers in calls without a cache.

    Args:
        hidden_states: (batch, channels, sequence).
        dt: time steps before softplus, (batch, channels, sequence).
        rates: the paper's A, float32, (channels, states).
        entering: the paper's B, (batch, states, sequence).
        leaving: the paper's C, (batch, states, sequence).
        D: skip connection past the states, float32, (channels,).
        z: gate before SiLU, (batch, channels, sequence).
        delta_bias: added to `dt`, float32, (channels,).
        flags: implementation choices; not used.

    Returns:
        float32, (batch, channels, sequence).
    """
    del flags
    steps = torch.nn.functional.softplus(dt + delta_bias[:, None])
    # The scanned axis must come first.
    walked = [tensor.float().permute(2, 0, 1) for tensor in (hidden_states, steps, entering, leaving)]
    # torch.jit documents `is_tracing`, but does not list it in `__all__`.
    run = _walk if torch.jit.is_tracing() else torch.ops.hfexport.selective_scan  # type: ignore[attr-defined]
    outputs: torch.Tensor = run(*walked, rates).permute(1, 2, 0).to(hidden_states.dtype)
    return (outputs + hidden_states * D[None, :, None]) * torch.nn.functional.silu(z)


def _recurrence(
    hidden_states: torch.Tensor,
    steps: torch.Tensor,
    entering: torch.Tensor,
    leaving: torch.Tensor,
    rates: torch.Tensor,
) -> torch.Tensor:
    """Run the recurrence step by step. All tensors are float32.

    Args:
        hidden_states: (sequence, batch, channels).
        steps: (sequence, batch, channels).
        entering: (sequence, batch, states).
        leaving: (sequence, batch, states).
        rates: (channels, states).

    Returns:
        (sequence, batch, channels).
    """
    state = torch.zeros([hidden_states.size(1), rates.size(0), rates.size(1)], dtype=rates.dtype, device=rates.device)
    outputs = torch.empty_like(hidden_states)
    for index in range(hidden_states.size(0)):
        step = steps[index].unsqueeze(-1)
        fresh = (step * entering[index].unsqueeze(1)) * hidden_states[index].unsqueeze(-1)
        state = torch.exp(rates * step) * state + fresh
        outputs[index] = torch.matmul(state, leaving[index].unsqueeze(-1)).squeeze(-1)
    return outputs


_walk = torch.jit.script(_recurrence)
"""The recurrence as a script function, so that a trace keeps the loop."""

_operator = torch.library.custom_op("hfexport::selective_scan", mutates_args=())(_recurrence)
"""The recurrence as one operator, so that `torch.export` does not unroll it."""


@_operator.register_fake
def _like_hidden_states(hidden_states: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
    del others
    return torch.empty_like(hidden_states)


def _to_scan(
    hidden_states: ir.Value, steps: ir.Value, entering: ir.Value, leaving: ir.Value, rates: ir.Value
) -> ir.Value:
    """Translate the operator to an ONNX `Scan` whose body is one step of the recurrence."""
    (batch,) = call_op("Shape", hidden_states, start=1, end=2)
    (sizes,) = call_op("Concat", batch, *call_op("Shape", rates), axis=0)
    (nothing,) = call_op("ConstantOfShape", sizes)
    walked = (hidden_states, steps, entering, leaving)
    _, outputs = call_op("Scan", nothing, *walked, _num_outputs=2, body=_step(rates), num_scan_inputs=len(walked))
    return outputs


def _step(rates: ir.Value) -> ir.Graph:
    """Build the body: state and one step of each input give the new state and an output. `rates` is an outer value."""
    assert rates.shape is not None
    channels, states = rates.shape
    nodes: list[ir.Node] = []

    def value(name: str, *shape: Any) -> ir.Value:
        return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(("batch", *shape)))

    def add(operator: str, *inputs: ir.Value, output: ir.Value | None = None, **attributes: Any) -> ir.Value:
        # Every value needs a unique name, or the outer graph would number it among its own values.
        output = output or ir.Value(name=f"scan_{len(nodes)}")
        nodes.append(ir.node(operator, inputs, attributes, outputs=(output,)))
        return output

    state, hidden, step = value("state", channels, states), value("hidden", channels), value("step", channels)
    entering, leaving = value("entering", states), value("leaving", states)
    last, middle = add("Constant", value_ints=[-1]), add("Constant", value_ints=[1])
    column = add("Unsqueeze", step, last)
    fresh = add("Mul", add("Mul", column, add("Unsqueeze", entering, middle)), add("Unsqueeze", hidden, last))
    kept = add("Mul", add("Exp", add("Mul", rates, column)), state)
    new_state = add("Add", kept, fresh, output=value("new_state", channels, states))
    product = add("MatMul", new_state, add("Unsqueeze", leaving, last))
    given = add("Squeeze", product, last, output=value("given", channels))
    return ir.Graph((state, hidden, step, entering, leaving), (new_state, given), nodes=nodes, name="selective_scan")


TRANSLATIONS: Mapping[Any, Callable[..., Any]] = {torch.ops.hfexport.selective_scan.default: _to_scan}
