"""`benchmark` through the command line, and contenders that cannot be measured: each with a reason, and no failure."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from broken import export_config
from hfexport.backends.base import Artifact
from hfexport.cli.main import main
from hfexport.export_config import ExportConfig
from hfexport.manifest.entries import MANIFEST_FILE, check_manifest
from hfexport.manifest.speed import benchmark_entry, skipped
from hfexport.validation.speed import EAGER, Contender, Setting, Speed, measure_speed
from tiny import make_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model") / "bert", "bert", "default")


@pytest.fixture(scope="module")
def made(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    output = tmp_path_factory.mktemp("run") / "out"
    said = io.StringIO()
    arguments = ["--model", str(checkpoint), "--output", str(output), "--variants", "O1", "--benchmark"]
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(said),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr("hfexport.validation.speed.ROUNDS", 1)
        code = main(arguments)
    assert code == 0, said.getvalue()
    return output, said.getvalue()


def manifest_of(output: Path) -> dict[str, Any]:
    return dict(json.loads((output / MANIFEST_FILE).read_text(encoding="utf-8")))


def test_every_file_and_the_model_are_measured(made: tuple[Path, str]) -> None:
    output, said = made
    manifest = manifest_of(output)
    check_manifest(manifest)  # type: ignore[arg-type]
    benchmark = manifest["benchmark"]
    assert [(one["name"], one["format"], one["variant"]) for one in benchmark["contenders"]] == [
        (EAGER, None, None),
        ("ONNX", "onnx", None),
        ("TorchScript", "torchscript", None),
        ("ONNX O1", "onnx", "O1"),
    ]
    for contender in benchmark["contenders"]:
        assert contender["reason"] == ""
        assert contender["rounds"] == 1
        assert [timing["call"] for timing in contender["timings"]] == list(range(len(benchmark["calls"])))
        for timing in contender["timings"]:
            assert 0 < timing["p10_ms"] <= timing["median_ms"] <= timing["p90_ms"]
    assert benchmark["threads"] == 1
    assert {call["sizes"]["batch"] for call in benchmark["calls"]} == {1, 8}
    assert "of eager" in said
    assert "speed" in {stage["name"].lower() for stage in manifest["stages"]}


def test_verify_measures_the_files_where_it_runs(
    made: tuple[Path, str], checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfexport.validation.speed.ROUNDS", 1)
    output, _ = made
    before, said = (output / MANIFEST_FILE).read_bytes(), io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        code = main(["verify", str(output), "--model", str(checkpoint), "--benchmark"])
    assert code == 0, said.getvalue()
    for name in (EAGER, "ONNX", "TorchScript", "ONNX O1"):
        assert re.search(rf"^{name}  .* ms  ", said.getvalue(), re.MULTILINE)
    assert (output / MANIFEST_FILE).read_bytes() == before


def measure(
    checkpoint: Path, files: Sequence[tuple[Artifact, ExportConfig]], folder: Path, **values: Any
) -> tuple[Speed, list[str]]:
    """Measure the model and one artifact in one round."""
    size = sum(path.stat().st_size for artifact, _ in files for path in artifact.files)
    contenders = [
        Contender(EAGER, "", "", (), "float32", size),
        Contender("ONNX", "onnx", "", tuple(files), "float32", size),
    ]
    setting = Setting(lambda: checkpoint, "fp32", folder / "speed", os.environ, rounds=1)
    speed = measure_speed(contenders, replace(setting, **values))
    assert not (folder / "speed").exists()
    return speed, skipped(benchmark_entry(speed, folder))


def onnx_of(made: tuple[Path, str], checkpoint: Path, folder: Path) -> tuple[Artifact, ExportConfig]:
    """A copy of the ONNX file, with its export config."""
    path = folder / "model.onnx"
    path.write_bytes((made[0] / "onnx/model.onnx").read_bytes())
    return Artifact("onnx", path, (path,)), export_config(checkpoint, "default")


def test_a_file_that_does_not_load_gets_a_reason(made: tuple[Path, str], checkpoint: Path, tmp_path: Path) -> None:
    artifact, config = onnx_of(made, checkpoint, tmp_path)
    artifact.path.write_bytes(artifact.path.read_bytes()[:1000])
    speed, reasons = measure(checkpoint, [(artifact, config)], tmp_path)
    (reason,) = reasons
    assert reason.startswith("ONNX: model.onnx: ONNX Runtime cannot load it")
    assert str(tmp_path) not in reason
    model, broken = speed.results
    assert len(model.ms) == len(speed.calls)
    assert not broken.ms


def test_sizes_that_a_file_rejects_get_a_reason(made: tuple[Path, str], checkpoint: Path, tmp_path: Path) -> None:
    artifact, config = onnx_of(made, checkpoint, tmp_path)
    model = onnx.load(artifact.path)
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, artifact.path)
    speed, reasons = measure(checkpoint, [(artifact, config)], tmp_path)
    (reason,) = reasons
    assert reason.startswith("ONNX at model, batch 8, sequence 32; model, batch 8, sequence 64: ")
    timed = [call.name for number, call in enumerate(speed.calls) if number in speed.results[1].ms]
    assert timed == ["batch 1, sequence 32", "batch 1, sequence 64"]


def test_an_exhausted_budget_is_said(made: tuple[Path, str], checkpoint: Path, tmp_path: Path) -> None:
    speed, reasons = measure(checkpoint, [onnx_of(made, checkpoint, tmp_path)], tmp_path, budget_s=0.5)
    assert reasons == [f"{name}: the 0.5 s for the benchmark were used up" for name in (EAGER, "ONNX")]
    assert not any(result.ms for result in speed.results)


def test_a_process_that_is_stopped_is_said(
    made: tuple[Path, str], checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of a process ends before it has loaded anything."""
    monkeypatch.setattr("hfexport.validation.speed.measure.LEAST_S", 0.0)
    _, reasons = measure(checkpoint, [onnx_of(made, checkpoint, tmp_path)], tmp_path, budget_s=0.002)
    assert len(reasons) == 2
    assert all(reason.endswith("the 0.002 s for the benchmark were used up") for reason in reasons)


def test_an_artifact_of_fixed_sizes_is_called_at_these(
    made: tuple[Path, str], checkpoint: Path, tmp_path: Path
) -> None:
    artifact, config = onnx_of(made, checkpoint, tmp_path)
    fixed = replace(artifact, fixed_sizes={"batch": 2, "sequence": 16})
    speed, reasons = measure(checkpoint, [(fixed, config)], tmp_path)
    assert reasons == []
    assert [dict(call.probe.sizes) for call in speed.calls] == [{"batch": 2, "sequence": 16}]
    assert all(len(result.ms) == 1 for result in speed.results)
