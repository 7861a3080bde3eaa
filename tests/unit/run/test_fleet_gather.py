"""The table of many exports: what is in it, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hfexport.cli.main import main
from hfexport.errors import CheckpointError, InputsError, ValidationError
from hfexport.hub.source import Source
from hfexport.manifest.entries import error_entry, new_manifest, write_manifest
from hfexport.run.fleet.gather import exit_code, gather, markdown
from hfexport.run.inputs import Inputs, recorded
from local_hub.made import make_output
from manifests import full_manifest

FILES = {"config.json": b"{}", "model.safetensors": b"weights"}


def _export(folder: Path, name: str, verdict: str = "passed") -> None:
    manifest = make_output(folder, Source(name, Path(name)), FILES)
    manifest["inputs"]["model"] = name
    if verdict == "failed":
        manifest["verdict"] = "failed"
        manifest["artifacts"][0]["validation"] |= {"verdict": "failed", "reason": "logits differ"}
        manifest["error"] = error_entry(ValidationError("logits differ"))
    write_manifest(manifest, folder)


def _error(folder: Path, name: str, error: Any) -> None:
    folder.mkdir(parents=True)
    manifest = new_manifest(recorded(Inputs(model=name)), "2026-01-01T00:00:00+00:00")
    manifest["error"] = error_entry(error)
    write_manifest(manifest, folder)


def test_one_table_of_all_exports(tmp_path: Path) -> None:
    _export(tmp_path / "a" / "one", "org/one")
    _export(tmp_path / "b", "org/two")
    _export(tmp_path / "b" / ".hfexport-x", "org/unfinished")
    gathered = gather([tmp_path / "b", tmp_path / "a", tmp_path / "a" / "one"])
    assert [one.name for one in gathered] == ["org/one", "org/two"]
    text = markdown(gathered)
    assert "## hfexport: 2 of 2 models exported" in text
    assert text.count("| org/one |") == 2
    assert exit_code(gathered) == 0


def test_latency_is_a_column_if_any_export_has_it(tmp_path: Path) -> None:
    _export(tmp_path / "a", "org/one")
    assert "latency" not in markdown(gather([tmp_path]))
    (tmp_path / "b").mkdir()
    write_manifest(full_manifest("org/two"), tmp_path / "b")
    lines = markdown(gather([tmp_path])).splitlines()
    assert next(line for line in lines if line.startswith("| model |")).endswith("| latency |")
    cells = [line.split(" | ")[-1] for line in lines if line.startswith("| org/")]
    assert cells == ["- |", "- |", "0.87 of eager |", "- |"]


def test_failures_come_first_and_a_failed_artifact_is_6(tmp_path: Path) -> None:
    _export(tmp_path / "good", "org/good")
    _export(tmp_path / "wrong", "org/wrong", "failed")
    _error(tmp_path / "none", "org/none", CheckpointError("no such | model\n<b>", remedy="Check it."))
    gathered = gather([tmp_path])
    assert gathered[-1].name == "org/good"
    text = markdown(gathered)
    assert "1 of 3 models exported" in text
    assert "- **org/none** (exit code 3): no such \\| model &lt;b&gt; Check it." in text
    assert exit_code(gathered) == 6
    assert exit_code([one for one in gathered if one.name != "org/wrong"]) == 3


def test_what_cannot_be_gathered_is_named(tmp_path: Path) -> None:
    for name, content in {"empty": None, "text": "x", "other": "{}", "old": '{"schema_version": 0}'}.items():
        (tmp_path / name).mkdir()
        if content is not None:
            (tmp_path / name / "hfexport.json").write_text(content)
    with pytest.raises(InputsError) as caught:
        gather([tmp_path / name for name in ("empty", "text", "other", "old", "missing")])
    said = [problem.removeprefix(f"{tmp_path}/") for problem in caught.value.problems]
    assert said[0] == "empty: holds no hfexport.json"
    assert said[1] == "text/hfexport.json: is not JSON"
    assert said[2].startswith("other/hfexport.json: is no manifest of this version: ")
    assert said[4] == "missing: is no folder"


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    _export(tmp_path / "out" / "one", "org/one")
    _export(tmp_path / "out2", "org/wrong", "failed")
    assert main(["gather", "out"]) == 0
    assert "| org/one |" in capsys.readouterr().out
    assert "| org/one |" in summary.read_text()
    assert main(["gather", "out", "out2", "--json"]) == 6
    found = json.loads(capsys.readouterr().out)
    assert (found["exit_code"], [model["name"] for model in found["models"]]) == (6, ["org/wrong", "org/one"])
    assert main(["gather", "out", "--output", "to/table.md"]) == 0
    assert "| org/one |" in Path("to/table.md").read_text()
    assert main(["gather", "out", "--output", "all.json"]) == 0
    assert json.loads(Path("all.json").read_text())["exit_code"] == 0
    assert main(["gather", "out", "out2", "--output", "to/all.html"]) == 6
    page = Path("to/all.html").read_text()
    assert "org/one" in page
    assert "org/wrong" in page
    assert main(["gather", "out", "--output", "out"]) == 2
    assert "output 'out' cannot be written" in capsys.readouterr().err
    assert main(["gather"]) == 2
    assert main(["gather", "--model", "x", "out"]) == 2
