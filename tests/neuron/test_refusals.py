"""What must be refused or said to be open: every failure of the SDK, its compiler and its run time, as it happens."""

from __future__ import annotations

import copy
import dataclasses
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from hfexport.manifest.entries import check_manifest
from neuron.conftest import Exported, Exporter


def export(exporter: Exporter, stand_in: str, *options: str) -> Exported:
    """A small classifier, compiled as asked."""
    checkpoint = exporter.checkpoint("distilbert", "sequence-classification")
    return exporter.run(checkpoint, *options, stand_in=stand_in)


def test_without_a_device_that_check_is_not_run_and_nothing_is_called_passed(exporter: Exporter) -> None:
    done = export(exporter, "")
    assert done.code == 0
    verdict, reason = done.checks["device"]
    assert verdict == "not_run" and reason.startswith("no Neuron device (The PyTorch Neuron Runtime could not be")
    assert [done.checks[name][0] for name in ("environment", "trace", "compiled")] == ["passed"] * 3
    assert done.manifest["verdict"] == done.artifact["validation"]["verdict"] == "incomplete"
    assert "device: not run: no Neuron device" in done.said
    for change in ("manifest", "artifact"):
        wrong = copy.deepcopy(done.manifest)
        (wrong if change == "manifest" else wrong["artifacts"][0]["validation"])["verdict"] = "passed"
        with pytest.raises(jsonschema.ValidationError):
            check_manifest(wrong)


def test_the_sdk_reaches_no_network(exporter: Exporter) -> None:
    assert export(exporter, "").artifact["details"]["network"] == "none"
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        done = export(exporter, f"--stand-in-connect=127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(BlockingIOError):
            server.accept()
    assert (done.code, "Connection refused" in done.said) == (8, True)


FAILURES = [
    ("inf1", "--stand-in-crash=SIGKILL", (), 8, "most likely because memory ran out"),
    ("inf1", "--stand-in-crash=SIGSEGV", (), 8, "ended by SIGSEGV"),
    ("inf1", "--stand-in-raise=broken", (), 8, "compiling model: broken"),
    ("inf1", "--stand-in-sleep=30", ("--neuron-timeout", "1"), 8, "compiling model took longer than 1 s"),
    ("inf1", "--stand-in-compiler-exit=1", (), 8, "No operations were successfully partitioned and compiled"),
    ("inf1", "--stand-in-compiler-killed", (), 8, "Compile command returned: -9"),
    ("inf1", "--stand-in-limit=1000", (), 8, "GraphDef exceeds maximum protobuf size"),
    ("inf1", "", ("--neuron-fallback", "false"), 8, "Operator aten::embedding is not supported"),
    ("inf1", "", ("--neuron-minimum-segment-size", "5000"), 6, "nothing was compiled"),
    ("inf1", "--stand-in-unsupported=aten::linear,aten::view", (), 6, "neuron-min-compiled requires 90 %"),
    ("inf1", "--stand-in-device --stand-in-wrong", (), 6, "device: batch 1, sequence 24: logits:"),
    ("inf2", "--stand-in-crash=SIGKILL", (), 8, "most likely because memory ran out"),
    ("inf2", "--stand-in-raise=Unimplemented", (), 8, "compiling model: Unimplemented"),
    ("inf2", "--stand-in-compiler-exit=70", (), 8, "neuronx-cc failed with 70"),
    ("inf2", "--stand-in-compiler-killed", (), 8, "insufficient memory to compile"),
    ("inf2", "--stand-in-sleep=30", ("--neuron-timeout", "1"), 8, "compiling model took longer than 1 s"),
    ("inf2", "--stand-in-limit=1000", (), 8, "GraphDef exceeds maximum protobuf size"),
    ("inf2", "--stand-in-device --stand-in-wrong", (), 6, "device: batch 1, sequence 24: logits:"),
]
"""Target, what the stand-in is told, further inputs, exit code, and what is said of it."""


@pytest.mark.parametrize(("target", "stand_in", "options", "code", "said"), FAILURES)
def test_a_failure_ends_the_run_and_leaves_nothing(
    exporter_for: Callable[[str], Exporter],
    target: str,
    stand_in: str,
    options: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    done = export(exporter_for(target), stand_in, *options)
    assert done.code == code, done.said
    assert said in done.said
    assert "Traceback" not in done.said.split("error:")[-1]
    assert done.manifest["verdict"] == ("failed" if code == 6 else "error")
    assert done.files == ["hfexport.json"]


def test_a_subgraph_that_silently_runs_on_cpu_is_counted(exporter: Exporter) -> None:
    done = export(exporter, "--stand-in-unsupported=aten::gelu --stand-in-fail=3", "--neuron-min-compiled", "0.1")
    assert done.code == 0, done.said
    assert "failed to compile and left on CPU: _NeuronGraph$3" in done.checks["compiled"][1]
    (part,) = done.artifact["details"]["parts"]
    assert part["fallbacks"] == ["_NeuronGraph$3"] and part["cpu_operators"]["aten::gelu"] == 2


def test_a_checkpoint_that_older_transformers_reads_otherwise_is_caught(exporter: Exporter) -> None:
    # transformers 4 knows nothing of `rope_parameters`, and computes positions by another base without a word.
    rope = {"rope_type": "default", "rope_theta": 50.0}
    checkpoint = exporter.checkpoint("llama", "causal-lm", rope_parameters=rope)
    done = exporter.run(checkpoint, "--task", "causal-lm", "--neuron-min-compiled", "0.5")
    assert done.code == 6, done.said
    assert "transformers 4.46.3 give other outputs for this checkpoint" in done.checks["environment"][1]
    assert done.files == ["hfexport.json"]


def test_an_interpreter_without_the_sdk_is_refused_before_any_work(exporter: Exporter) -> None:
    checkpoint = exporter.checkpoint("distilbert", "sequence-classification")
    done = dataclasses.replace(exporter, python=Path(sys.executable)).run(checkpoint)
    assert done.code == 8, done.said
    assert f"package torch-neuron is not installed for {sys.executable}" in done.said
    assert "-m pip install" in done.said
    assert "Model configuration" not in done.said and done.files == ["hfexport.json"]


def test_a_model_that_older_transformers_does_not_know_is_refused(exporter: Exporter) -> None:
    done = exporter.run(exporter.checkpoint("modernbert", "auto"))
    assert done.code == 4, done.said
    assert "transformers 4.46.3 cannot load the checkpoint" in done.said and done.files == ["hfexport.json"]


def test_what_cannot_be_traced_there_is_refused_up_front(exporter: Exporter) -> None:
    done = exporter.run(exporter.checkpoint("deberta-v2", "masked-lm"))
    assert done.code == 4
    assert "deberta-v2 cannot be compiled" in done.said and "XSoftmax" in done.said
    assert "compiling model" not in done.said


def test_validation_can_be_off_and_says_so(exporter: Exporter) -> None:
    done = export(exporter, "", "--validate", "off")
    assert (done.code, done.manifest["verdict"]) == (0, "not_validated")
    assert done.artifact["validation"]["verdict"] == "not_run" and done.checks == {}


def test_a_megabyte_of_noise_hides_nothing_and_no_token_is_seen(
    exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecretsecret")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    done = export(exporter, "--stand-in-noise=1000000")
    assert done.code == 0
    assert "more lines, which --verbose shows" in done.said
    assert not any(line.startswith("::set-output") for line in done.said.splitlines())
    assert (done.folder / "neuron" / "compile.log").stat().st_size > 1_000_000
    for name in done.files:
        assert b"hf_secret" not in (done.folder / name).read_bytes()
    assert "hf_secret" not in done.said.replace("::add-mask::hf_secretsecretsecret", "")
