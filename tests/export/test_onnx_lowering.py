"""The shortcuts of lowering give the graph that `torch.onnx` gives without them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from hfexport.backends.onnx import lowering as onnx_lowering

SHORTCUTS = ("_values_that_are_known", "_registry_without_sources")


class Mixed(torch.nn.Module):
    """Has what type promotion is for: integers and booleans beside floats, Python numbers, sizes, an `int` by a `float`."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        bias = (1 - mask) * -1e4 + mask.bool() * 0.5
        hidden = self.linear(ids.unsqueeze(-1) * torch.ones(4)) + bias.unsqueeze(-1)
        return hidden * ids.unsqueeze(-1), ids / ids.shape[1], torch.where(mask > 0, ids, 0.5)


def lowered() -> list[tuple[Any, ...]]:
    """Every node of the graph, by operator, inputs and outputs with their types."""
    batch, sequence = torch.export.Dim("batch"), torch.export.Dim("sequence")
    axes = {0: batch, 1: sequence}
    example = torch.ones(2, 5, dtype=torch.int64)
    program = torch.export.export(Mixed(), (example, example), dynamic_shapes=(axes, axes), strict=False)
    config = SimpleNamespace(
        inputs=[SimpleNamespace(name="ids"), SimpleNamespace(name="mask")],
        outputs=[SimpleNamespace(name=name) for name in ("hidden", "ratio", "chosen")],
    )
    graph = onnx_lowering.lower(program, config, 20, {}).model.graph  # type: ignore[arg-type]
    return [
        (
            node.op_type,
            tuple(value and value.name for value in node.inputs),
            tuple((value.name, value.dtype, str(value.shape)) for value in node.outputs),
        )
        for node in graph
    ]


@pytest.mark.parametrize("name", SHORTCUTS)
def test_a_shortcut_changes_nothing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    quick = lowered()
    without: Callable[[], AbstractContextManager[None]] = nullcontext
    monkeypatch.setattr(onnx_lowering, name, without)
    assert lowered() == quick
    assert sum(operator == "Cast" for operator, *_ in quick) >= 5


def test_values_are_not_those_of_types_before_promotion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without promotion the graph is another one, so that the comparison above says something."""

    def unpromoted(self: object, node: torch.fx.Node, rule: object) -> torch.fx.Node:
        del self, rule
        return node

    quick = lowered()
    monkeypatch.setattr(onnx_lowering._KnownValues, "_maybe_promote_node", unpromoted)
    assert lowered() != quick


def test_a_squeeze_takes_only_axes_that_are_one() -> None:
    class Squeezes(torch.nn.Module):
        def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return hidden.squeeze(-1) + 1, hidden.squeeze(1) + 1, hidden.squeeze() + 1

    program = torch.export.export(
        Squeezes(), (torch.ones(2, 1, 3),), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
    )
    names = ("last", "middle", "all")
    config = SimpleNamespace(
        inputs=[SimpleNamespace(name="hidden")], outputs=[SimpleNamespace(name=name) for name in names]
    )
    lowered = onnx_lowering.lower(program, config, 20, {})  # type: ignore[arg-type]
    session = onnxruntime.InferenceSession(lowered.model_proto.SerializeToString())
    shapes = [value.shape for value in session.run(None, {"hidden": np.ones((1, 1, 3), np.float32)})]
    assert shapes == [(1, 1, 3), (1, 3), (1, 3)]


def test_nothing_stays_replaced() -> None:
    before = (onnx_lowering._core._prepare_exported_program_for_export, vars(onnx_lowering.values.TracedOnnxFunction))
    lowered()
    assert onnx_lowering._core._prepare_exported_program_for_export is before[0]
    assert isinstance(vars(onnx_lowering.values.TracedOnnxFunction)["function_ir"], property)
    assert onnx_lowering.type_promotion._TypePromotionInterpreter is not onnx_lowering._KnownValues
