"""`neuron-target: inf2`, end to end: torch_neuronx has its own arguments, errors and graphs."""

from __future__ import annotations

import json
import subprocess

import pytest

from hfexport.manifest.summary import load_snippet
from neuron.conftest import WITH_DEVICE, Exporter


@pytest.mark.parametrize(
    ("model_type", "task"),
    [("bert", "question-answering"), ("vit", "image-classification")],
)
def test_a_kind_is_exported_and_proved(exporter_inf2: Exporter, model_type: str, task: str) -> None:
    checkpoint = exporter_inf2.checkpoint(model_type, task)
    done = exporter_inf2.run(checkpoint, "--task", task, "--batch-size", "2", stand_in=WITH_DEVICE)
    assert done.code == 0, done.said
    assert done.manifest["verdict"] == "passed"
    assert {name: verdict for name, (verdict, _) in done.checks.items()} == {
        "environment": "passed",
        "trace": "passed",
        "compiled": "passed",
        "device": "passed",
    }
    assert done.checks["compiled"][1] == "100.0 % of operators compiled, in 1 subgraphs; on CPU: none"
    details = done.artifact["details"]
    assert (details["target"], details["compiler"]) == ("inf2", "neuronx-cc")
    assert "optimizations" not in details
    neuron = json.loads((done.folder / "neuron" / "config.json").read_text())["neuron"]
    assert (neuron["compiler_type"], neuron["compiler_version"]) == ("neuronx-cc", "2.28.7631.0")
    log = (done.folder / "neuron" / "compile.log").read_text()
    assert "Compiler status PASS" in log
    program = load_snippet(done.artifact, done.manifest) + "print([len(output) for output in outputs.values()])"
    shown = subprocess.run(
        [exporter_inf2.python, "-I", "-c", program], cwd=done.folder, capture_output=True, text=True, check=True
    )
    assert set(json.loads(shown.stdout)) == {1}


def test_an_encoder_decoder_writes_what_the_model_writes(exporter_inf2: Exporter) -> None:
    checkpoint = exporter_inf2.checkpoint("t5", "seq2seq-lm")
    options = ("--neuron-decoder-length", "12", "--neuron-beams", "3")
    done = exporter_inf2.run(checkpoint, *options, stand_in=WITH_DEVICE)
    assert done.code == 0, done.said
    assert {verdict for verdict, _ in done.checks.values()} == {"passed"}


def test_a_dynamic_batch_is_asked_at_another_batch_too(exporter_inf2: Exporter) -> None:
    checkpoint = exporter_inf2.checkpoint("distilbert", "sequence-classification")
    done = exporter_inf2.run(checkpoint, "--neuron-dynamic-batch-size", "true", stand_in=WITH_DEVICE)
    assert done.code == 0, done.said
    assert done.artifact["fixed_sizes"] == {"sequence": 24}
    assert {probe["sizes"]["batch"] for probe in done.artifact["validation"]["probes"]} == {1, 3}


def test_without_a_device_that_check_is_not_run(exporter_inf2: Exporter) -> None:
    checkpoint = exporter_inf2.checkpoint("distilbert", "sequence-classification")
    done = exporter_inf2.run(checkpoint, stand_in="--target=trn1")
    assert done.code == 0, done.said
    assert done.checks["device"][0] == "not_run" and done.manifest["verdict"] == "incomplete"
    assert "--target=trn1" in done.artifact["details"]["compiler_args"]
