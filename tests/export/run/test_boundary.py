"""Whatever is raised in a run: the earlier export is gone, and the manifest, the outputs and the summary say `error`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hfexport._internal.blame import explain
from hfexport.cli.main import main
from hfexport.errors import CheckpointError, ExportError, InputsError, InternalError
from hfexport.manifest.entries import MANIFEST_FILE
from hfexport.run import pipeline
from hfexport.run.output_folder import STAGING_PREFIX, install, output_lock, staging_folder, sweep, withdraw
from hfexport.run.report import REPORT_FILE
from tiny import make_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model") / "roberta", "roberta", "default")


def _changed(source: Path, folder: Path, values: Mapping[str, Any]) -> Path:
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps({**config, **values}))
    return folder


def _earlier(output: Path) -> None:
    """What an earlier run left: a manifest that says passed, and an artifact."""
    (output / "onnx").mkdir(parents=True)
    (output / "onnx" / "model.onnx").write_bytes(b"earlier")
    listed = {"files": [], "artifacts": [{"files": [{"path": "onnx/model.onnx"}]}], "verdict": "passed"}
    (output / MANIFEST_FILE).write_text(json.dumps(listed))


def _names(output: Path) -> set[str]:
    return {path.relative_to(output).as_posix() for path in output.rglob("*")}


def _actions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    outputs, summary = folder / "outputs", folder / "summary.md"
    monkeypatch.setenv("GITHUB_OUTPUT", str(outputs))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    return outputs, summary


def test_an_error_in_the_checkpoint_withdraws_the_earlier_export(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    outputs, summary = _actions(tmp_path, monkeypatch)
    output = tmp_path / "out"
    _earlier(output)
    broken = _changed(checkpoint, tmp_path / "broken", {"pad_token_id": None})
    assert main(["--model", str(broken), "--formats", "onnx", "--output", str(output)]) == 3
    said = capfd.readouterr().err
    assert str(broken) in said
    assert "Traceback" not in said
    manifest = json.loads((output / MANIFEST_FILE).read_bytes())
    assert (manifest["verdict"], manifest["error"]["exit_code"]) == ("error", 3)
    assert _names(output) == {MANIFEST_FILE}
    assert "verdict<<" in outputs.read_text()
    assert "\nerror\n" in outputs.read_text()
    assert "exit code 3" in summary.read_text()


@pytest.mark.parametrize("verbose", [False, True])
def test_a_bug_is_told_briefly_and_leaves_a_report_without_secrets(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    verbose: bool,
) -> None:
    outputs, summary = _actions(tmp_path, monkeypatch)
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecretsecret")
    output = tmp_path / "out"
    _earlier(output)

    def broken(*_: object, **__: object) -> None:
        raise LookupError("no such thing as hf_secretsecretsecret")

    monkeypatch.setattr(pipeline, "resolve_dtype", broken)
    arguments = ["--model", str(checkpoint), "--output", str(output), *(["--verbose"] if verbose else [])]
    assert main(arguments) == 1
    said = capfd.readouterr().err
    assert "LookupError: no such thing as ***" in said
    assert str(output / REPORT_FILE) in said
    assert ("Traceback" in said) == verbose
    assert _names(output) == {MANIFEST_FILE, REPORT_FILE}
    report = (output / REPORT_FILE).read_text()
    assert "Traceback (most recent call last)" in report
    assert '"transformers"' in report
    for text in (said, report, (output / MANIFEST_FILE).read_text(), outputs.read_text(), summary.read_text()):
        assert "hf_secretsecretsecret" not in text
    assert json.loads((output / MANIFEST_FILE).read_bytes())["error"]["exit_code"] == 1
    with output_lock(output):  # the next run removes the report
        withdraw(output)
    assert _names(output) == set()


def test_two_runs_into_one_folder(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    outputs, _ = _actions(tmp_path, monkeypatch)
    output = tmp_path / "out"
    _earlier(output)
    before = _names(output)
    with output_lock(output):
        assert main(["--model", str(checkpoint), "--output", str(output)]) == 2
    assert "is in use by another run" in capfd.readouterr().err
    assert _names(output) == before
    assert "\nerror\n" in outputs.read_text()


@pytest.mark.parametrize("where", ["1>&- 2>/dev/full", pytest.param("| true", marks=pytest.mark.thorough)])
def test_output_that_was_closed_changes_nothing(where: str, checkpoint: Path, tmp_path: Path) -> None:
    command = f"{sys.executable} -m hfexport --model {checkpoint} --formats torchscript --validate off --json"
    output = tmp_path / "out"
    script = f"{command} --output {output} {where}; exit ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", script], check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert json.loads((output / MANIFEST_FILE).read_bytes())["verdict"] == "not_validated"


def test_staging_that_no_process_owns_is_removed(tmp_path: Path) -> None:
    left = tmp_path / f"{STAGING_PREFIX}left"
    left.mkdir()
    (left / "weights").write_bytes(b"copy")
    with staging_folder(tmp_path) as mine:
        sweep(tmp_path)
        assert mine.is_dir()
        assert not left.exists()
    assert _names(tmp_path) == set()


def test_what_a_run_that_was_killed_moved_into_place_is_removed(tmp_path: Path) -> None:
    ready, output = tmp_path / "ready", tmp_path / "out"
    (ready / "onnx").mkdir(parents=True)
    (ready / "onnx" / "model.onnx").write_bytes(b"new")
    _earlier(output)
    (output / "mine.txt").write_text("the user's")
    install(ready, output)  # killed before the manifest
    assert "onnx/model.onnx" in _names(output)
    sweep(output)
    assert _names(output) == {"mine.txt"}


def test_what_is_whose_fault() -> None:
    def raised(source: str, module: str, error: str = "RuntimeError()") -> BaseException:
        code = compile(source.format(error), f"/somewhere/{module}.py", "exec")
        try:
            exec(code, {"__name__": module})
        except Exception as found:  # noqa: BLE001
            return found
        raise AssertionError

    assert type(explain(raised("raise {}", "hfexport_own_mine"), "m")) is InputsError
    assert type(explain(raised("raise {}", "transformers_modules.x.modeling"), "m")) is CheckpointError
    assert type(explain(raised("raise {}", "transformers.models.bert.modeling_bert"), "m")) is CheckpointError
    assert type(explain(raised("raise {}", "hfexport.export_config.builtin.bert"), "m")) is CheckpointError
    assert type(explain(raised("raise {}", "hfexport.run.stages"), "m")) is InternalError
    assert type(explain(raised("raise {}", "hfexport.run.stages", "MemoryError()"), "m")) is ExportError
    full = explain(OSError(28, "No space left on device", "/tmp/x"), "m")
    assert type(full) is ExportError
    assert "/tmp" in full.message
    assert "bytes are free" in full.message
    silent = explain(raised("raise {}", "hfexport.run.stages", "type('Own', (Exception,), {})()"), "m")
    assert "Own" in silent.message
