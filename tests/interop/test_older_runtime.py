"""Artifacts in ONNX Runtime 1.16.3, which OpenSearch carries: the same outputs as in the current one.

It takes IR versions up to 9 and opsets up to 19. It lives in an environment of its own, which `make interop-test` makes.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from transformers import AutoConfig

from hfexport.cli.main import main
from hfexport.export_config import ExportConfig
from hfexport.export_config.builtin import config_class_for
from hfexport.export_config.probes import validation_probes
from hfexport.export_config.tasks import TASKS
from tiny import make_checkpoint

PYTHON = Path(__file__).resolve().parents[2] / ".venv-older" / "bin" / "python"
PEER = Path(__file__).with_name("runtime_peer.py")


def _export(folder: Path, model_type: str, task: str, opset: int) -> tuple[Path, ExportConfig]:
    checkpoint = make_checkpoint(folder / "checkpoint", model_type, task)
    output = folder / "output"
    asked = ["--model", str(checkpoint), "--task", task, "--formats", "onnx", "--opset", str(opset)]
    assert main([*asked, "--output", str(output)]) == 0
    config = config_class_for(model_type)(AutoConfig.from_pretrained(checkpoint), TASKS[task])
    return output / "onnx", config.graphs("merged")[0]


def ask_peer(model: Path, inputs: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    assert PYTHON.exists(), f"{PYTHON} is missing; `make interop-test` makes it"
    np.savez(model.with_name("inputs.npz"), **inputs)
    paths = [model, model.with_name("inputs.npz"), model.with_name("outputs.npz")]
    return subprocess.run([PYTHON, PEER, *paths], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("model_type", "task", "opset"),
    [
        ("bert", "sequence-classification", 17),
        ("bert", "sequence-classification", 19),
        ("llama", "causal-lm-with-past", 17),
        ("llama", "causal-lm-with-past", 18),
        ("t5", "seq2seq-lm-with-past", 17),
        ("vit", "image-classification", 17),
    ],
)
def test_it_runs_in_an_older_runtime(model_type: str, task: str, opset: int, tmp_path: Path) -> None:
    folder, config = _export(tmp_path, model_type, task, opset)
    inputs: Any = validation_probes(config)[1].inputs(config, "fp32")
    model = folder / f"{config.graph}.onnx"
    answer = ask_peer(model, inputs)
    assert answer.returncode == 0, answer.stderr[-2000:]
    expected = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, inputs)
    with np.load(folder / "outputs.npz") as found:
        assert list(found.files) == [spec.name for spec in config.outputs]
        for name, array in zip(found.files, expected, strict=True):
            np.testing.assert_allclose(found[name], array, atol=2e-5, rtol=1e-4)
    for graph in folder.glob("*.onnx"):  # the merged decoder as well
        if graph != model:
            answer = ask_peer(graph, {})
            assert "KeyError" in answer.stderr, answer.stderr[-2000:]  # it loads, and lacks its inputs


def test_it_refuses_a_newer_opset(tmp_path: Path) -> None:
    folder, config = _export(tmp_path, "bert", "sequence-classification", 20)
    answer = ask_peer(folder / "model.onnx", dict(validation_probes(config)[1].inputs(config, "fp32")))
    assert answer.returncode != 0 and "till opset 19" in answer.stderr
