"""The worker under the SDK's torch and transformers, given what the command line would not let through to it."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import Any

import pytest
import transformers
from safetensors.torch import load_file, save_file

from hfexport.backends.base import ExportJob
from hfexport.backends.neuron import backend
from hfexport.backends.neuron.backend import NeuronBackend
from hfexport.backends.neuron.messages import Request, WorkerAnswer
from hfexport.backends.neuron.options import NeuronOptions, NeuronRun
from hfexport.backends.neuron.protocol import ask
from hfexport.backends.neuron.sizes import Sizes
from hfexport.errors import ExportError, NeuronError, UnsupportedError
from hfexport.export_config.builtin import config_class_for
from hfexport.export_config.tasks import TASKS
from neuron.conftest import Exporter


class Worker:
    """The real worker, without the pipeline in front of it."""

    def __init__(self, exporter: Exporter) -> None:
        self.exporter = exporter
        options = NeuronOptions("inf1", exporter.python)
        self.run = NeuronRun(
            options, exporter.folder / "work", {"PATH": os.defpath}, lambda lines: deque(lines, 0).clear()
        )
        self.made = exporter.folder / "made"
        self.made.mkdir()

    def compile(self, checkpoint: Path, model_type: str, *, sequence: int = 9) -> Any:
        model_config = transformers.AutoConfig.from_pretrained(checkpoint)
        model_config.max_position_embeddings = 512  # more than the checkpoint has, so that any length gets through
        config = config_class_for(model_type)(model_config, TASKS["masked-lm"])
        made = NeuronBackend(self.run, Sizes(batch=1, sequence=sequence), [].append)
        return made.export(ExportJob(checkpoint, config, "fp32", self.made, {}))


@pytest.fixture
def worker(exporter: Exporter) -> Worker:
    return Worker(exporter)


def test_a_weight_that_older_transformers_does_not_find_is_named(worker: Worker) -> None:
    checkpoint = worker.exporter.checkpoint("bert", "masked-lm")
    weights = load_file(checkpoint / "model.safetensors")
    del weights["bert.encoder.layer.0.output.dense.bias"]
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        UnsupportedError, match=r"does not find these weights: bert\.encoder\.layer\.0\.output\.dense\.bias"
    ):
        worker.compile(checkpoint, "bert")
    assert list(worker.made.iterdir()) == []


def test_a_model_that_fails_there_is_said_to(worker: Worker) -> None:
    checkpoint = worker.exporter.checkpoint("bert", "masked-lm")  # of 64 positions
    with pytest.raises(ExportError, match="the model fails on the traced example: RuntimeError"):
        worker.compile(checkpoint, "bert", sequence=65)
    assert list(worker.made.iterdir()) == []


def test_what_is_refused_up_front_fails_there_for_the_reason_given(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "_UNTRACEABLE", {})
    checkpoint = worker.exporter.checkpoint("deberta-v2", "masked-lm")
    with pytest.raises((ExportError, NeuronError), match="XSoftmax"):
        worker.compile(checkpoint, "deberta-v2")


class _UnknownRequest(Request, frozen=True, tag="publish"):
    pass


class _NewerRequest(Request, frozen=True, tag="probe"):
    protocol: int = 2


@pytest.mark.parametrize("job", [_UnknownRequest(), _NewerRequest()])
def test_a_job_that_it_does_not_understand_is_refused(worker: Worker, job: Request) -> None:
    with pytest.raises(NeuronError, match="uses protocol 1, and the job another one"):
        ask(worker.run, job, WorkerAnswer, worker.run.folder, timeout_s=60)
