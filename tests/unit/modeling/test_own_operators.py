"""Operators of hfexport in ONNX: ONNX Runtime computes what torch does, at other lengths than the captured one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch

from hfexport.modeling.traceable import lstm, selective_scan


class _Lstm(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.LSTM(3, 4, num_layers=2)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return lstm.lstm(self.layers, given)


class _Scan(torch.nn.Module):
    """A recurrence whose inputs are all made of one tensor, (sequence, batch, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.rates = torch.nn.Parameter(-torch.rand(6, 4))
        self.skip, self.bias = torch.nn.Parameter(torch.randn(6)), torch.nn.Parameter(torch.randn(6))

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        states = given.permute(1, 2, 0)
        entering, leaving = states[:, :4], states[:, 2:]
        return selective_scan.selective_scan(
            states, states, self.rates, entering, leaving, D=self.skip, z=states, delta_bias=self.bias
        )


@pytest.mark.parametrize(
    ("make", "features", "translations"),
    [(_Lstm, 3, lstm.TRANSLATIONS), (_Scan, 6, selective_scan.TRANSLATIONS)],
    ids=["lstm", "scan"],
)
def test_an_operator_of_any_length(
    make: Callable[[], torch.nn.Module], features: int, translations: Mapping[Any, Callable[..., Any]], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module = make().eval().requires_grad_(False)
    axes = ({0: torch.export.Dim("sequence"), 1: torch.export.Dim("batch")},)
    program = torch.onnx.export(
        module,
        (torch.randn(5, 2, features),),
        dynamo=True,
        dynamic_shapes=axes,
        custom_translation_table=dict(translations),
        verbose=False,
    )
    assert program is not None
    program.save(str(tmp_path / "model.onnx"))
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    for length, batch in ((5, 2), (1, 1), (12, 3)):
        given = torch.randn(length, batch, features)
        (found,) = session.run(None, {session.get_inputs()[0].name: given.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), module(given), atol=1e-5, rtol=1e-4)
