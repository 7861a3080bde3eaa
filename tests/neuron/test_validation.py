"""Every check says no to an artifact that is wrong in just its way, and knows what it could not find out."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from hfexport.backends.base import ExportJob
from hfexport.backends.neuron.artifact import NeuronArtifact
from hfexport.backends.neuron.backend import NeuronBackend
from neuron.conftest import WITH_DEVICE, Exported, Exporter

SHIFTED = """
import sys, torch
extra = {"hfexport.json": ""}
module = torch.jit.load(sys.argv[1], _extra_files=extra)
with torch.no_grad():
    for parameter in module.parameters():
        parameter.add_(0.01)
torch.jit.save(module, sys.argv[1], _extra_files=extra)
"""
"""A trace of another model than the one that was compiled."""


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[NeuronArtifact], None]], None]:
    """Has something done to the artifact between its making and its validation."""

    def install(change: Callable[[NeuronArtifact], None]) -> None:
        make = NeuronBackend.export

        def export(self: NeuronBackend, job: ExportJob) -> NeuronArtifact:
            artifact = make(self, job)
            change(artifact)
            return artifact

        monkeypatch.setattr(NeuronBackend, "export", export)

    return install


def exported(exporter: Exporter, model_type: str = "distilbert", task: str = "masked-lm") -> Exported:
    checkpoint = exporter.checkpoint(model_type, task)
    return exporter.run(checkpoint, "--neuron-decoder-length", "10", "--neuron-beams", "2", stand_in=WITH_DEVICE)


def failed(done: Exported) -> dict[str, str]:
    """The checks that failed, with what they say."""
    assert done.code == 6, done.said
    assert done.manifest["verdict"] == "failed" and done.files == ["hfexport.json"]
    return {name: reason for name, (verdict, reason) in done.checks.items() if verdict == "failed"}


def test_a_trace_that_is_not_the_model_fails(exporter: Exporter, spoil: Any) -> None:
    spoil(lambda artifact: subprocess.run([exporter.python, "-c", SHIFTED, artifact.parts[0].trace], check=True))
    found = failed(exported(exporter))
    assert list(found) == ["trace"] and "logits" in found["trace"]


def test_a_run_time_that_writes_another_text_fails(exporter: Exporter, spoil: Any) -> None:
    def one_token_behind(artifact: NeuronArtifact) -> None:
        (code,) = (path for path in artifact.files if path.name == "__init__.py")
        code.write_text(code.read_text().replace("length - 1)", "length - 2 if length > 1 else 0)"))

    spoil(one_token_behind)
    found = failed(exported(exporter, "marian", "seq2seq-lm"))
    assert list(found) == ["generation"]
    assert "with 1 beams it writes" in found["generation"] and "the model writes" in found["generation"]


def test_an_artifact_that_does_not_run_fails(exporter: Exporter, spoil: Any) -> None:
    spoil(lambda artifact: artifact.path.write_bytes(artifact.path.read_bytes()[:-1000]))
    assert list(failed(exported(exporter))) == ["device"]


def test_a_reason_of_its_own_says_what_was_not_run(exporter: Exporter) -> None:
    checkpoint = exporter.checkpoint("distilbert", "masked-lm")
    done = exporter.run(checkpoint, "--neuron-minimum-segment-size", "5000", "--neuron-min-compiled", "0")
    assert list(failed(done)) == ["compiled"]
    assert done.checks["device"] == ("not_run", "nothing was compiled")
