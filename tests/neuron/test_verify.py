"""`hfexport verify` of a Neuron artifact: run again where there is a device, and never called right where there is none."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from hfexport.checkpoint import sha256
from hfexport.cli.main import main
from neuron.conftest import WITH_DEVICE, Exported, Exporter


def verify(done: Exported, checkpoint: Path, python: Path | None) -> int:
    options = ["--neuron-python", str(python)] if python is not None else []
    return main(["verify", str(done.folder), "--model", str(checkpoint), *options])


def believe(done: Exported) -> None:
    """Have the manifest of `done` describe the files as they are now, as whoever replaced them would."""
    manifest = copy.deepcopy(done.manifest)
    for artifact in manifest["artifacts"]:
        for entry in artifact["files"]:
            file = done.folder / entry["path"]
            entry.update(sha256=sha256(file), size_bytes=file.stat().st_size)
    (done.folder / "hfexport.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("model_type", "task", "options"),
    [
        ("distilbert", "masked-lm", {"--batch-size": "2"}),
        ("marian", "seq2seq-lm", {"--neuron-decoder-length": "10", "--neuron-beams": "2"}),
    ],
)
def test_on_a_device_it_is_run_again(
    exporter: Exporter, capfd: pytest.CaptureFixture[str], model_type: str, task: str, options: Mapping[str, str]
) -> None:
    checkpoint = exporter.checkpoint(model_type, task)
    asked = [word for option in options.items() for word in option]
    done = exporter.run(checkpoint, *asked, stand_in=WITH_DEVICE)
    (done.folder / "neuron" / "hfexport_neuron" / "__init__.py").write_text("raise SystemExit(3)\n")  # not run
    believe(done)
    assert verify(done, checkpoint, exporter.python) == 0
    assert "neuron: the compiled artifact ran on a Neuron device" in capfd.readouterr().err


def test_it_is_not_called_right_without_a_device_or_an_sdk(
    exporter: Exporter, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoint = exporter.checkpoint("distilbert", "masked-lm")
    done = exporter.run(checkpoint)
    assert (done.code, done.manifest["verdict"]) == (0, "incomplete")
    assert verify(done, checkpoint, exporter.python) == 4
    assert "device was not run: no Neuron device" in capfd.readouterr().err
    assert verify(done, checkpoint, None) == 4
    assert "running it takes the Neuron SDK" in capfd.readouterr().err


def test_a_wrong_artifact_and_one_that_was_not_compiled_are_found_out(
    exporter: Exporter, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoint = exporter.checkpoint("distilbert", "masked-lm")
    done = exporter.run(checkpoint, stand_in=WITH_DEVICE)
    exporter.run(checkpoint, "--validate", "off", stand_in=f"{WITH_DEVICE} --stand-in-wrong")  # in its place
    believe(done)
    assert verify(done, checkpoint, exporter.python) == 6
    assert "neuron: device: batch 1, sequence 24: logits:" in capfd.readouterr().err
    torch.jit.save(torch.jit.script(torch.nn.Identity()), done.folder / "neuron" / "model.neuron")
    believe(done)
    assert verify(done, checkpoint, exporter.python) == 6
    assert "calls no compiled subgraph" in capfd.readouterr().err
