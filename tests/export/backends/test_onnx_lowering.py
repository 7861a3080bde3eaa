"""The shortcuts of lowering give the graph that `torch.onnx` gives without them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import AutoConfig

from hfexport._internal.upstream.exporters import apply_fx_node_fixes
from hfexport.backends.onnx import lowering as onnx_lowering
from hfexport.backends.onnx.capture import capture
from hfexport.backends.onnx.passes import finish_graph
from hfexport.export_config import ExportConfig
from hfexport.export_config.builtin import known_architectures
from hfexport.export_config.tasks import TASKS
from tiny import make_checkpoint

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


@pytest.mark.parametrize(
    ("model_type", "task"),
    [
        ("bert", "sequence-classification"),
        ("distilbert", "default"),
        pytest.param("llama", "causal-lm-with-past", marks=pytest.mark.thorough),
        pytest.param("t5", "seq2seq-lm-with-past", marks=pytest.mark.thorough),
    ],
)
def test_lowering_without_decomposing_gives_equal_graphs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model_type: str, task: str
) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", model_type, task)
    config = known_architectures()[model_type](AutoConfig.from_pretrained(folder), TASKS[task])
    light = [finished(graph) for graph in config.graphs("split")]
    monkeypatch.setattr(onnx_lowering, "_light_preparation", nullcontext)
    assert [finished(graph) for graph in config.graphs("split")] == light
    assert all(len(nodes) > 100 for nodes in light)


def finished(config: ExportConfig) -> list[tuple[Any, ...]]:
    """Every node of the finished graph of a config, with its attributes; values by the order in which they appear."""
    model = capture(config, "fp32", 18).model
    finish_graph(model, config)
    numbers: dict[Any, int] = {None: -1}
    return [
        (
            node.op_type,
            tuple(sorted((name, str(attribute.value)) for name, attribute in node.attributes.items())),
            tuple(numbers.setdefault(value, len(numbers)) for value in node.inputs),
            tuple((numbers.setdefault(value, len(numbers)), value.dtype, str(value.shape)) for value in node.outputs),
        )
        for node in model.graph
    ]


class Rewritten(torch.nn.Module):
    """Has every operator that the light preparation writes in another way."""

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first, second, third = hidden.split(2, dim=-1)
        left, right = hidden.chunk(2, dim=-1)
        dropped = torch.nn.functional.dropout(hidden, 0.5, training=False)
        viewed = hidden.transpose(1, 2).contiguous().view(hidden.shape[0], -1)
        both = (mask > 0) & (mask < 3)
        either = (mask > 0) | (mask < -3)
        cast = mask.to(torch.float32) + mask.to(hidden) + mask.to("cpu", torch.float32)
        return first * third - second, left + right, dropped, viewed, both, either, cast


def test_what_is_rewritten_answers_as_what_is_decomposed(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, mask = torch.rand(3, 4, 6), torch.randint(-5, 5, (3, 4))
    batch = {0: torch.export.Dim("batch")}
    names = ("parts", "halves", "dropped", "viewed", "both", "either", "cast")
    config = SimpleNamespace(
        inputs=[SimpleNamespace(name="hidden"), SimpleNamespace(name="mask")],
        outputs=[SimpleNamespace(name=name) for name in names],
    )

    def answers() -> tuple[set[str], list[Any]]:
        program = torch.export.export(Rewritten(), (hidden[:2], mask[:2]), dynamic_shapes=(batch, batch), strict=False)
        apply_fx_node_fixes("onnx", program.graph_module)
        model = onnx_lowering.lower(program, config, 20, {}).model_proto  # type: ignore[arg-type]
        session = onnxruntime.InferenceSession(model.SerializeToString())
        return {node.op_type for node in model.graph.node}, session.run(
            None, {"hidden": hidden.numpy(), "mask": mask.numpy()}
        )

    operators, light = answers()
    monkeypatch.setattr(onnx_lowering, "_light_preparation", nullcontext)
    others, thorough = answers()
    assert operators != others
    for one, other, wanted in zip(light, thorough, Rewritten()(hidden, mask), strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one, wanted.numpy())


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
    before = (
        onnx_lowering.exporter_core._prepare_exported_program_for_export,
        vars(onnx_lowering.values.TracedOnnxFunction),
    )
    lowered()
    assert onnx_lowering.exporter_core._prepare_exported_program_for_export is before[0]
    assert isinstance(vars(onnx_lowering.values.TracedOnnxFunction)["function_ir"], property)
    assert onnx_lowering.type_promotion._TypePromotionInterpreter is not onnx_lowering._KnownValues
