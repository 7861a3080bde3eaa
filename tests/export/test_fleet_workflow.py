"""The reusable workflow: its `run:` steps, taken from the file, export a fleet of tiny models with this command line."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from hfexport._internal.forkserver import WARM_SERVERS
from tiny import make_checkpoint

pytestmark = pytest.mark.usefixtures("warm_commands")

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW: Mapping[Any, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "fleet.yml").read_text(encoding="utf-8"))
DEFAULTS = {
    name: str(part["default"]).lower() if isinstance(part["default"], bool) else str(part["default"])
    for name, part in WORKFLOW[True]["workflow_call"]["inputs"].items()  # YAML 1.1 reads `on` as true
}

FEW = (("bert", "sequence-classification"), ("vit", "image-classification"))
TEN = (
    *FEW,
    *(("gpt2", "causal-lm-with-past"), ("t5", "seq2seq-lm-with-past"), ("whisper", "speech2seq-lm-with-past")),
    *(("llama", "causal-lm-with-past"), ("distilbert", "token-classification"), ("resnet", "image-classification")),
    *(("clip", "default"), ("albert", "question-answering")),
)


class Runner:
    """Runs the `run:` steps of the workflow's jobs in bash, as the runner does; artifacts are folders."""

    def __init__(self, folder: Path) -> None:
        self.workspace = folder / "workspace"
        self.artifacts = folder / "artifacts"
        self.folder = folder
        (folder / "bin").mkdir()
        program = folder / "bin" / "hfexport"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m hfexport "$@"\n', encoding="utf-8")
        program.chmod(0o755)
        self.summary = ""
        self.said = ""

    def job(self, name: str, contexts: Mapping[str, str], number: int = 0) -> tuple[dict[str, str], int]:
        """Run a job; returns the outputs of its steps, and the exit code of the first step that failed."""
        temporary = self.folder / f"temporary-{name}-{number}"
        temporary.mkdir()
        contexts = {**contexts, "runner.temp": str(temporary), "strategy.job-index": str(number)}
        outputs: dict[str, str] = {}
        code = 0
        for step in WORKFLOW["jobs"][name]["steps"]:
            if code and step.get("if", "") != "always()":
                continue
            if "run" in step:
                done = self._run(step, contexts, temporary, outputs)
                code = code or done.returncode
            elif "upload-artifact" in step["uses"] and step.get("if", "") in ("", "always()"):
                self._upload(step["with"], contexts)
            elif "download-artifact" in step["uses"]:
                self._download(step["with"])
        return outputs, code

    def _run(
        self, step: Mapping[str, Any], contexts: Mapping[str, str], temporary: Path, outputs: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        commands = temporary / "commands"
        commands.mkdir(exist_ok=True)
        (commands / "output").write_text("", encoding="utf-8")
        (commands / "summary").write_text("", encoding="utf-8")
        kept = {name: os.environ[name] for name in ("LANG", "TMPDIR", WARM_SERVERS) if name in os.environ}
        env = {
            **kept,
            **{"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "HOME": str(temporary), "HF_HUB_OFFLINE": "1"},
            **{"PYTHONPATH": os.pathsep.join(sys.path), "GITHUB_ACTIONS": "true", "RUNNER_TEMP": str(temporary)},
            **{"GITHUB_OUTPUT": str(commands / "output"), "GITHUB_STEP_SUMMARY": str(commands / "summary")},
            **{name: _filled(str(value), contexts) for name, value in step.get("env", {}).items()},
        }
        assert "${{" not in step["run"], "values reach a script by its environment"
        done = subprocess.run(
            ["bash", "-e", "-c", step["run"]],
            cwd=self.workspace,
            env=env,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        self.said += f"--- {step['name']}\n{done.stdout}\n{done.stderr}\n"
        self.summary += (commands / "summary").read_text(encoding="utf-8")
        written = (commands / "output").read_text(encoding="utf-8")
        for name, _, value in re.findall(r"(?s)([\w-]+)<<(\S+)\n(.*?)\n\2\n", written):
            outputs[f"steps.{step['id']}.outputs.{name}"] = value
        return done

    def _upload(self, given: Mapping[str, Any], contexts: Mapping[str, str]) -> None:
        source = self.workspace / _filled(given["path"], contexts)
        if source.is_dir():
            shutil.copytree(source, self.artifacts / _filled(given["name"], contexts))

    def _download(self, given: Mapping[str, Any]) -> None:
        for folder in self.artifacts.glob(given["pattern"]):
            shutil.copytree(folder, self.workspace / given["path"] / folder.name)

    def workflow(self, **inputs: str) -> dict[str, int]:
        """Run all jobs; returns their exit codes."""
        contexts = {f"inputs.{name}": value for name, value in {**DEFAULTS, **inputs}.items()}
        contexts["secrets.hub-token"] = ""
        outputs, code = self.job("plan", contexts)
        codes = {"plan": code}
        if code:
            return codes
        jobs = WORKFLOW["jobs"]
        needs = {f"needs.plan.outputs.{name}": _filled(text, outputs) for name, text in jobs["plan"]["outputs"].items()}
        if needs["needs.plan.outputs.count"] == "0":
            return codes
        matrix = json.loads(
            _filled(jobs["export"]["strategy"]["matrix"].replace("fromJSON(", "").replace(")", ""), needs)
        )
        for number, one in enumerate(matrix["include"]):
            values = {f"matrix.{name}": str(value) for name, value in one.items()}
            codes[one["name"]] = self.job("export", {**contexts, **needs, **values}, number)[1]
        codes["gather"] = self.job("gather", {**contexts, **needs})[1]
        return codes


def _filled(text: str, contexts: Mapping[str, str]) -> str:
    """Replace expressions that name one value."""
    return re.sub(r"\$\{\{\s*([\w.-]+)\s*\}\}", lambda found: contexts[found[1]], text)


def _runner(folder: Path, kinds: tuple[tuple[str, str], ...], text: str) -> Runner:
    runner = Runner(folder)
    runner.workspace.mkdir()
    for model_type, task in kinds:
        make_checkpoint(runner.workspace / "models" / model_type, model_type, task)
    (runner.workspace / "models.yaml").write_text(text, encoding="utf-8")
    return runner


def test_the_steps_of_the_workflow(tmp_path: Path) -> None:
    text = "defaults: {formats: torchscript, validate: 'off'}\nmodels:\n- glob: models/*\n- model: models/none\n"
    runner = _runner(tmp_path, FEW, text)
    codes = runner.workflow()
    expected = {"plan": 0, "models/bert": 0, "models/vit": 0, "models/none": 3, "gather": 3}
    assert codes == expected, runner.said
    assert "2 of 3 models exported" in runner.summary
    assert "models/none" in runner.summary
    report = runner.artifacts / "hfexport-report" / "report.html"
    assert "models/vit" in report.read_text(encoding="utf-8")


def test_a_wrong_file_ends_the_plan_and_an_empty_plan_runs_no_job(tmp_path: Path) -> None:
    runner = _runner(tmp_path, (), "models:\n- {model: a/b, formats: onx}\n")
    assert runner.workflow() == {"plan": 2}
    assert "models.yaml:2: formats is 'onx'" in runner.said
    shutil.rmtree(tmp_path / "temporary-plan-0")
    assert runner.workflow(file="other.yaml") == {"plan": 2}


def test_jobs_do_not_stop_each_other_and_gather_always_runs() -> None:
    jobs = WORKFLOW["jobs"]
    assert jobs["export"]["strategy"]["fail-fast"] is False
    assert jobs["gather"]["if"].startswith("always()")
    assert WORKFLOW["permissions"] == {}


@pytest.mark.thorough
def test_ten_kinds_of_models_killed_half_way_and_by_the_workflow(tmp_path: Path) -> None:
    runner = _runner(tmp_path, TEN, "defaults: {formats: onnx}\nmodels:\n- glob: models/*\n")
    command = [str(tmp_path / "bin" / "hfexport"), "fleet", "models.yaml", "--jobs", "2"]
    env = {**os.environ, "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    started = subprocess.Popen(command, cwd=runner.workspace, env=env, stderr=subprocess.DEVNULL)
    while len(list(runner.workspace.glob("hfexport-out/*/hfexport.json"))) < len(TEN) // 2:
        assert started.poll() is None
        time.sleep(0.05)
    started.send_signal(signal.SIGKILL)
    started.wait()
    before = {path: path.read_text() for path in runner.workspace.glob("hfexport-out/*/hfexport.json")}
    done = subprocess.run(command, cwd=runner.workspace, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{len(TEN) - len(before)} exported, 0 failed, {len(before)} were current" in done.stderr
    assert {path: path.read_text() for path in before} == before
    manifests = list(runner.workspace.glob("hfexport-out/*/hfexport.json"))
    assert {json.loads(path.read_text())["verdict"] for path in manifests} == {"passed"}
    page = (runner.workspace / "hfexport-out" / "report.html").read_text(encoding="utf-8")
    assert all(f"models/{model_type}" in page for model_type, _ in TEN)

    shutil.rmtree(runner.workspace / "hfexport-out")
    codes = runner.workflow()
    assert set(codes.values()) == {0}, runner.said
    assert len(codes) == len(TEN) + 2
    assert f"{len(TEN)} of {len(TEN)} models exported" in runner.summary
