"""Whole runs through the command line: the manifest, the summary, the snippets, and what a failed run leaves."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest

from hfexport.cli.main import main
from hfexport.manifest.entries import MANIFEST_FILE, check_manifest
from hfexport.manifest.summary import job_summary, load_snippet
from tiny import make_checkpoint
from tiny.seq2seq import FEWER_LAYERS


@dataclass(frozen=True)
class Run:
    """One run of the command line."""

    exit_code: int
    stdout: str
    stderr: str
    output: Path

    @property
    def manifest(self) -> dict[str, Any]:
        return dict(json.loads((self.output / MANIFEST_FILE).read_text(encoding="utf-8")))

    @property
    def files(self) -> set[str]:
        return {str(path.relative_to(self.output)) for path in self.output.rglob("*") if path.is_file()}


def run(output: Path, *arguments: str | Path) -> Run:
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        code = main(["--output", str(output), *map(str, arguments)])
    return Run(code, stdout.getvalue(), stderr.getvalue(), output)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "a_name|with *marks*"
    return make_checkpoint(folder, "bert", "question-answering", tokenizer=True)


@pytest.fixture(scope="module")
def passed(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(tmp_path_factory.mktemp("run") / "out", "--model", checkpoint, "--json")


def test_a_run_that_passes_says_so_everywhere(passed: Run) -> None:
    assert passed.exit_code == 0, passed.stderr
    manifest = passed.manifest
    check_manifest(manifest)
    assert json.loads(passed.stdout) == manifest
    assert (manifest["verdict"], manifest["error"]) == ("passed", None)
    assert (manifest["task"], manifest["dtype"]) == ("question-answering", "fp32")
    assert manifest["source"]["architectures"] == ["BertForQuestionAnswering"]
    assert {"Checkpoint", "Model configuration", "Export to onnx", "Files"} <= {s["name"] for s in manifest["stages"]}
    assert all(stage["seconds"] >= 0 for stage in manifest["stages"])


def test_every_file_is_listed_with_its_hash(passed: Run, checkpoint: Path) -> None:
    manifest = passed.manifest
    listed = [*manifest["files"], *(file for artifact in manifest["artifacts"] for file in artifact["files"])]
    assert {entry["path"] for entry in listed} | {MANIFEST_FILE} == passed.files
    for entry in listed:
        data = (passed.output / entry["path"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (entry["size_bytes"], entry["sha256"])
    for entry in manifest["source"]["files"]:
        assert hashlib.sha256((checkpoint / entry["path"]).read_bytes()).hexdigest() == entry["sha256"]
    for name in ("config.json", "tokenizer.json", "vocab.txt"):
        assert (passed.output / name).read_bytes() == (checkpoint / name).read_bytes()


@pytest.mark.parametrize("number", [0, 1])
def test_the_snippet_loads_and_runs_the_artifact(passed: Run, number: int) -> None:
    manifest = passed.manifest
    snippet = load_snippet(manifest["artifacts"][number], manifest)
    assert snippet in job_summary(manifest)
    program = snippet + "\nassert len(outputs) == 2\n"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=passed.output, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_text_from_outside_does_not_format_the_summary(passed: Run) -> None:
    assert r"a\_name\|with \*marks\*" in job_summary(passed.manifest)


def test_a_failing_validation_leaves_only_the_manifest(passed: Run, checkpoint: Path, tmp_path: Path) -> None:
    failed = run(tmp_path / "out", "--model", checkpoint, "--formats", "onnx", "--atol", "1e-12")
    assert failed.exit_code == 6
    assert failed.files == {MANIFEST_FILE}
    check_manifest(failed.manifest)
    assert (failed.manifest["verdict"], failed.manifest["error"]["exit_code"]) == ("failed", 6)
    assert "differ too much" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_broken_checkpoint_leaves_only_the_manifest(checkpoint: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
    failed = run(tmp_path / "out", "--model", broken)
    assert failed.exit_code == 3
    assert failed.files == {MANIFEST_FILE}
    check_manifest(failed.manifest)
    assert failed.manifest["verdict"] == "error"


def test_unvalidated_is_never_called_passed(checkpoint: Path, tmp_path: Path) -> None:
    unproved = run(tmp_path / "out", "--model", checkpoint, "--formats", "torchscript", "--validate", "off")
    assert unproved.exit_code == 0
    check_manifest(unproved.manifest)
    assert unproved.manifest["verdict"] == "not_validated"
    assert unproved.manifest["artifacts"][0]["validation"]["verdict"] == "not_run"
    assert "passed" not in job_summary(unproved.manifest).split("Stages")[0].replace("probes passed", "")


def test_half_precision_is_widened_where_it_answers_too_coarsely(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "bloom", "default", dtype="fp16")
    arguments = ["--model", str(checkpoint), "--task", "default", "--formats", "torchscript", "--validate", "off"]
    for dtype, expected in (("auto", "fp32"), ("fp16", "fp16")):
        output = tmp_path / dtype
        assert main([*arguments, "--dtype", dtype, "--output", str(output)]) == 0
        assert json.loads((output / MANIFEST_FILE).read_text())["dtype"] == expected


def test_an_interface_is_inferred_in_half_precision_too(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "hubert", "auto", dtype="fp16")
    ran = run(tmp_path / "output", "--model", checkpoint, "--formats", "torchscript")
    assert (ran.exit_code, ran.manifest["dtype"]) == (0, "fp16")


@pytest.mark.parametrize(
    ("model_type", "task", "flags"),
    [
        ("gpt2", "causal-lm-with-past", ("return_dict", "use_cache")),
        *(
            pytest.param("t5", "seq2seq-lm-with-past", flags, marks=pytest.mark.thorough)
            for flags in (("return_dict", "use_cache"), ("return_dict",), ("use_cache",))
        ),
    ],
)
def test_a_flag_that_changes_what_forward_returns_changes_no_artifact(
    model_type: str, task: str, flags: tuple[str, ...], tmp_path: Path
) -> None:
    folder = make_checkpoint(tmp_path / "model", model_type, task, **dict.fromkeys(flags, False))
    done = run(tmp_path / "out", "--model", folder, "--formats", "onnx")
    assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize(
    ("by", "formats"),
    [
        ("input", "onnx"),
        pytest.param("input", "torchscript,onnx", marks=pytest.mark.thorough),
        pytest.param("config", "torchscript,onnx", marks=pytest.mark.thorough),
    ],
)
def test_attentions_and_hidden_states_become_outputs(by: str, formats: str, tmp_path: Path) -> None:
    asked = {"output_attentions": True, "attn_implementation": "eager"} if by == "config" else {}
    folder = make_checkpoint(
        tmp_path / "model", "whisper", "speech2seq-lm-with-past", **FEWER_LAYERS["whisper"], **asked
    )
    arguments = () if by == "config" else ("--outputs", "attentions, hidden_states")
    done = run(tmp_path / "out", "--model", folder, "--formats", formats, *arguments)
    assert done.exit_code == 0, done.stderr
    names = {output.name for output in onnx.load(done.output / "onnx/decoder_model_merged.onnx").graph.output}
    assert {"decoder_attentions.0", "cross_attentions.1"} <= names
    assert ("decoder_hidden_states.1" in names) == (by == "input")


def test_a_model_that_has_no_attentions_is_refused_with_them(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model", "resnet", "image-classification")
    done = run(tmp_path / "out", "--model", folder, "--outputs", "attentions")
    assert done.exit_code == 4
    assert "gives no attentions" in done.stderr


def test_a_manifest_that_does_not_fit_is_refused(passed: Run) -> None:
    import jsonschema

    with pytest.raises(jsonschema.ValidationError, match="perhaps"):
        check_manifest({**passed.manifest, "verdict": "perhaps"})
