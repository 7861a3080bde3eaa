"""How the SDK is called: weights beside the graph, optimisations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hfexport.backends.neuron.options import NeuronOptions, separate_weights_bytes
from hfexport.backends.neuron.worker.exporting import weights_apart
from neuron.conftest import WITH_DEVICE, Exporter


@pytest.mark.parametrize(
    ("target", "asked", "stand_in"),
    [
        # The stand-in refuses a graph with weights of more than 1000 bytes in it.
        ("inf1", "true", f"{WITH_DEVICE} --stand-in-limit=1000"),
        ("inf2", "true", f"{WITH_DEVICE} --stand-in-limit=1000"),
        ("inf1", "false", WITH_DEVICE),
    ],
)
def test_weights_are_kept_apart_when_asked(
    exporter_for: Callable[[str], Exporter], target: str, asked: str, stand_in: str
) -> None:
    exporter = exporter_for(target)
    checkpoint = exporter.checkpoint("distilbert", "sequence-classification")
    done = exporter.run(checkpoint, "--neuron-separate-weights", asked, "--validate", "off", stand_in=stand_in)
    assert done.code == 0, done.said
    (part,) = done.artifact["details"]["parts"]
    neuron = json.loads((done.folder / "neuron" / "config.json").read_text())["neuron"]
    assert part["separate_weights"] is (asked == "true") is not neuron["inline_weights_to_neff"]


def test_weights_are_kept_apart_by_themselves_above_what_a_graph_can_hold() -> None:
    """The tensors of these models hold no data."""

    def model(gigabytes: float) -> torch.nn.Module:
        return torch.nn.Linear(250_000, int(gigabytes * 1000), bias=False, device="meta")

    limit = NeuronOptions("inf1", Path("python")).separate_weights_bytes
    assert limit == separate_weights_bytes("auto") == 1_900_000_000
    assert [weights_apart(model(size), limit) for size in (0.5, 1.9, 1.901, 6)] == [False, False, True, True]
    assert weights_apart(model(0.001), separate_weights_bytes("true"))
    assert not weights_apart(model(6), separate_weights_bytes("false"))


def test_half_precision_can_be_asked_for(exporter: Exporter) -> None:
    checkpoint = exporter.checkpoint("distilbert", "sequence-classification")
    options = ("--neuron-optimizations", "float32_to_float16")
    done = exporter.run(checkpoint, *options, stand_in=WITH_DEVICE)
    assert done.code == 0, done.said
    assert done.artifact["details"]["optimizations"] == ["FLOAT32_TO_FLOAT16"]
    # float16 keeps three bits more of a number than bfloat16, in which the stand-in computes unless asked.
    (device,) = (check for check in done.artifact["validation"]["checks"] if check["name"] == "device")
    assert 0 < max(output["max_abs"] for probe in device["probes"] for output in probe["outputs"]) < 3e-3
