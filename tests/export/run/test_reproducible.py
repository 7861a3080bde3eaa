"""The same checkpoint gives the same bytes: on another day, in another place, with other threads and hash seeds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hfexport.cli.main import main
from tiny import make_checkpoint

ON_ANOTHER_DAY = """
import sys, time
shift_s = float(sys.argv.pop(1))
real = {name: getattr(time, name) for name in ("time", "time_ns", "localtime", "gmtime")}
time.time = lambda: real["time"]() + shift_s
time.time_ns = lambda: real["time_ns"]() + int(shift_s * 1e9)
time.localtime = lambda *at: real["localtime"](*(at or (time.time(),)))
time.gmtime = lambda *at: real["gmtime"](*(at or (time.time(),)))
from hfexport.cli.main import main
sys.exit(main())
"""


def _here(checkpoint: Path, folder: Path) -> dict[str, str]:
    """Export both formats in this process; return the SHA-256 of every file of every artifact."""
    assert main(["--model", str(checkpoint), "--validate", "off", "--output", str(folder / "out")]) == 0
    return _hashes(folder / "out")


def _elsewhere(checkpoint: Path, folder: Path, *, threads: int, days: int) -> dict[str, str]:
    """Do the same in a process of its own."""
    folder.mkdir(parents=True)
    copy = shutil.copytree(checkpoint, folder / f"checkpoint-{threads}")
    arguments = ["--model", copy.name, "--validate", "off", "--output", "out"]
    environment = {"OMP_NUM_THREADS": str(threads), "PYTHONHASHSEED": str(threads), "TZ": f"UTC{threads * 3}"}
    done = subprocess.run(
        [sys.executable, "-c", ON_ANOTHER_DAY, str(days * 86_400.0), *arguments],
        check=False,
        cwd=folder,
        env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return _hashes(folder / "out")


def _hashes(output: Path) -> dict[str, str]:
    manifest = json.loads((output / "hfexport.json").read_text())
    return {file["path"]: file["sha256"] for artifact in manifest["artifacts"] for file in artifact["files"]}


@pytest.mark.parametrize(
    ("model_type", "task"),
    [
        ("bert", "sequence-classification"),
        pytest.param("gpt2", "causal-lm-with-past", marks=pytest.mark.thorough),
        pytest.param("t5", "seq2seq-lm-with-past", marks=pytest.mark.thorough),
    ],
)
def test_the_same_bytes(tmp_path: Path, model_type: str, task: str) -> None:
    checkpoint = make_checkpoint(tmp_path / "made", model_type, task, tokenizer=True)
    first = _here(checkpoint, tmp_path / "here")
    second = _elsewhere(checkpoint, tmp_path / "quite" / "another place", threads=2, days=400)
    assert first == second
    assert {path.split("/")[0] for path in first} == {"onnx", "torchscript"}
