"""A fleet of tiny models on this machine: killed half-way, continued, and what failed told from what did not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hfexport._internal.forkserver import FORK_SERVERS
from tiny import make_checkpoint

KINDS = (("bert", "sequence-classification"), ("gpt2", "causal-lm-with-past"), ("vit", "image-classification"))

FILE = "defaults: {formats: torchscript, validate: 'off'}\nmodels:\n- glob: models/*\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for model_type, task in KINDS:
        make_checkpoint(tmp_path / "models" / model_type, model_type, task)
    (tmp_path / "models.yaml").write_text(FILE, encoding="utf-8")
    return tmp_path


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "hfexport", *words]


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "HOME": str(folder), "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}


def _run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _command(*words),
        cwd=folder,
        env=_environment(folder),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def _manifests(folder: Path) -> dict[str, str]:
    return {path.parent.name: path.read_text(encoding="utf-8") for path in folder.glob("hfexport-out/*/hfexport.json")}


def test_a_killed_fleet_continues_and_does_nothing_twice(folder: Path) -> None:
    assert FORK_SERVERS not in _environment(folder)
    started = subprocess.Popen(
        _command("fleet", "models.yaml"), cwd=folder, env=_environment(folder), stderr=subprocess.DEVNULL
    )
    while not _manifests(folder):
        assert started.poll() is None
        time.sleep(0.05)
    started.send_signal(signal.SIGKILL)
    started.wait()
    before = _manifests(folder)
    assert 1 <= len(before) < len(KINDS)

    done = _run(folder, "fleet", "models.yaml", "--jobs", "2")
    assert done.returncode == 0, done.stderr
    after = _manifests(folder)
    assert len(after) == len(KINDS)
    isolated = {name: json.loads(text)["isolation"] for name, text in after.items()}
    assert len({json.dumps(one) for one in isolated.values()}) == 1, isolated
    assert all(one is not None for one in isolated.values()), "a warm interpreter isolates itself, too"
    assert {name: after[name] for name in before} == before, "it was made once"
    for name in before:
        assert f"hfexport-out/{name} is current" in done.stderr
    assert f"{len(KINDS) - len(before)} exported, 0 failed, {len(before)} were current" in done.stderr
    assert not list(folder.glob("hfexport-out/*/.hfexport-*")), "nothing of the killed run is left"


@pytest.mark.thorough
def test_one_wrong_model_does_not_stop_the_others(folder: Path) -> None:
    text = FILE.replace("torchscript", "onnx") + "- {model: models/vit, task: masked-lm}\n- model: models/none\n"
    (folder / "models.yaml").write_text(text, encoding="utf-8")
    (folder / "models" / "gpt2" / "model.safetensors").write_bytes(b"damaged")
    done = _run(folder, "fleet", "models.yaml")
    assert done.returncode == 4, "the worst of 0, 3 and 4: " + done.stderr
    errors = {name: json.loads(text)["error"] for name, text in _manifests(folder).items()}
    assert {name: error and error["exit_code"] for name, error in errors.items()} == {
        **{"models--bert": None, "models--gpt2": 3},
        **{"models--vit": 4, "models--none": 3},
    }
    assert "1 exported, 3 failed, 0 were current" in done.stderr
    assert "models/vit: exit code 4: " in done.stderr
    assert "see hfexport-out/models--vit.log" in done.stderr


@pytest.mark.thorough
def test_an_interrupt_ends_the_processes(folder: Path) -> None:
    started = subprocess.Popen(
        _command("fleet", "models.yaml"), cwd=folder, env=_environment(folder), stderr=subprocess.DEVNULL
    )
    while not list(folder.glob("hfexport-out/*/.hfexport-*")):
        assert started.poll() is None
        time.sleep(0.05)
    started.send_signal(signal.SIGTERM)
    assert started.wait(60) == 143
    assert not list(folder.glob("hfexport-out/*/.hfexport-*"))
    (path,) = folder.glob("hfexport-out/*/hfexport.json")
    assert json.loads(path.read_text(encoding="utf-8"))["error"]["message"] == "interrupted"
