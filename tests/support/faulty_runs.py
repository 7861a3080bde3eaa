"""Whole runs that something goes wrong around: a full disk, a folder that is read-only or goes away, a kill at any stage.

Each function runs the command line in a process of its own over an output folder that holds an earlier export, and gives what
came of it as an `Outcome`. Mounting needs root.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["STAGES", "Outcome", "can_mount", "full_disk", "killed_at", "read_only", "removed_at"]

STAGES = (
    *("Source", "Checkpoint", "Weights", "Model configuration", "Export to onnx", "Validation of onnx/model.onnx"),
    *("Export to torchscript", "Validation of torchscript/model.pt", "Files"),
)
"""The stages of a run with both formats, as it says them."""

EARLIER = {"verdict": "passed", "files": [], "artifacts": [{"files": [{"path": "onnx/model.onnx"}]}]}


@dataclass(frozen=True)
class Outcome:
    """What a run ended with.

    Attributes:
        exit_code: negative for a signal.
        said: on standard error.
        verdict: of the manifest; empty if there is none.
        left: files in the output folder that its manifest does not list, staging included.
    """

    exit_code: int
    said: str
    verdict: str
    left: tuple[str, ...]


def can_mount(folder: Path) -> bool:
    """Whether this process may mount a file system."""
    try:
        with _mounted(folder / "probe", "64k"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def full_disk(checkpoint: Path, folder: Path, size: str, *options: str) -> Outcome:
    """Run with an output folder on a file system of that size, such as `100k`."""
    with _mounted(folder, size):
        return _finished(_start(checkpoint, folder / "out", options), folder / "out")


def read_only(checkpoint: Path, folder: Path, *options: str) -> Outcome:
    """Run with an output folder, and an earlier export in it, that cannot be written to."""
    with _mounted(folder, "1m"):
        earlier(folder / "out")
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        return _finished(_start(checkpoint, folder / "out", options), folder / "out")


def removed_at(stage: str, checkpoint: Path, output: Path, *options: str) -> Outcome:
    """Run, and remove the output folder when a stage begins."""
    earlier(output)
    process = _start(checkpoint, output, options)
    said = _read_until(process, stage)
    shutil.rmtree(output, ignore_errors=True)
    return _finished(process, output, said)


def killed_at(stage: str, checkpoint: Path, output: Path, *options: str) -> Outcome:
    """Run, and kill the process when a stage begins."""
    process = _start(checkpoint, output, options)
    said = _read_until(process, stage)
    process.send_signal(signal.SIGKILL)
    return _finished(process, output, said)


def run(checkpoint: Path, output: Path, *options: str) -> Outcome:
    """Run, and let nothing go wrong."""
    return _finished(_start(checkpoint, output, options), output)


def earlier(output: Path) -> None:
    """Put what looks like the export of an earlier run into a folder."""
    (output / "onnx").mkdir(parents=True)
    (output / "onnx" / "model.onnx").write_bytes(b"earlier")
    (output / "hfexport.json").write_text(json.dumps(EARLIER))


@contextmanager
def _mounted(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _start(checkpoint: Path, output: Path, options: Sequence[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "hfexport", "--model", str(checkpoint), "--output", str(output), *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=dict(os.environ))


def _read_until(process: subprocess.Popen[str], stage: str) -> str:
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if line.startswith(f"{stage} ..."):
            return said
    raise AssertionError(f"stage {stage!r} did not come: {said}")


def _finished(process: subprocess.Popen[str], output: Path, said: str = "") -> Outcome:
    assert process.stderr is not None
    said += process.stderr.read()
    code = process.wait()
    try:
        manifest = json.loads((output / "hfexport.json").read_bytes())
    except (OSError, ValueError):
        manifest = {"verdict": "", "files": [], "artifacts": []}
    listed = {"hfexport.json", *(file["path"] for file in manifest["files"])}
    listed |= {file["path"] for artifact in manifest["artifacts"] for file in artifact["files"]}
    found = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    return Outcome(code, said, manifest["verdict"], tuple(sorted(found - listed)))
