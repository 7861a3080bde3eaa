"""Run the Neuron worker in the SDK's interpreter: write its job, wait, and check its answer and files."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import msgspec

from hfexport._internal import workers
from hfexport._internal.messages import plain
from hfexport.backends.neuron import worker as worker_package
from hfexport.backends.neuron.messages import FileEntry, Request, WorkerAnswer
from hfexport.backends.neuron.options import PACKAGES, NeuronRun
from hfexport.errors import ExportError, HfexportError, NeuronError, UnsupportedError, ValidationError

__all__ = ["START_S", "Answer", "NoDevice", "ask"]

START_S: Final = 600.0
"""Time limit for everything except compiling: importing, loading, tracing and answering probes."""

MAX_ANSWER_BYTES: Final = 1 << 22

_ROOT: Final = Path(worker_package.__file__).resolve().parent.parent
_BOOTSTRAP: Final = (
    "import sys; root = sys.argv.pop(1); sys.path.insert(0, root); import worker; sys.path.remove(root); "
    "from worker.main import main; main()"
)
"""Imports the worker package from its folder, then removes the folder from the path so that it shadows no module."""


class NoDevice(Exception):
    """The SDK's runtime found no Neuron device. The message is that of the runtime."""


_T = TypeVar("_T", bound=WorkerAnswer)


@dataclass(frozen=True)
class Answer(Generic[_T]):
    """The worker's checked answer.

    Attributes:
        values: the answer's values.
        files: files that the worker wrote, by name; each is in its folder and has the reported size and hash.
        log: file with everything that the worker and the compiler printed.
    """

    values: _T
    files: Mapping[str, Path]
    log: Path


def ask(run: NeuronRun, job: Request, kind: type[_T], folder: Path, *, timeout_s: float) -> Answer[_T]:
    """Run `job` in the SDK's interpreter and return the checked answer.

    Args:
        run: interpreter, environment and listener.
        job: the job.
        kind: type of the answer.
        folder: folder for files of both sides; it already holds inputs.npz if the action needs it.
        timeout_s: time limit.

    Raises:
        NoDevice: action `run` found no Neuron device.
        NeuronError: the environment lacks a package, the compiler failed, or the answer breaks the protocol.
        HfexportError: the error that belongs to the worker's error code.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    values = plain(job)
    header = {"protocol": worker_package.PROTOCOL, "target": run.options.target}
    (folder / "job.json").write_text(json.dumps({**header, **values}), encoding="utf-8")
    python = run.options.python
    env = workers.child_environment(run.env)
    # The SDK looks its compiler up in PATH; put its own environment first.
    env["PATH"] = os.pathsep.join([str(python.parent), env.get("PATH", os.defpath)])
    for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
        env.pop(name, None)  # these belong to the interpreter that runs hfexport
    command = [str(python), "-I", "-B", "-u", "-c", _BOOTSTRAP, str(_ROOT), str(folder)]
    name = f"Neuron worker ({values['action']})"
    start = time.monotonic()
    try:
        worker = workers.launch(command, name=name, folder=folder, env=env, failure=NeuronError, tied=True)
    except OSError as error:
        raise NeuronError(
            f"neuron-python is {str(python)!r}, which cannot be started: {error.strerror}",
            remedy="Give the Python of the environment with the Neuron SDK; docs/neuron.md says how to create one.",
        ) from error
    with worker:
        run.listen(worker.follow(timeout_s))
        code = worker.wait(max(0.1, timeout_s - (time.monotonic() - start)))
        found = _read_answer(folder, code, worker.name, worker.log_tail())
    if found["status"] == "error":
        raise _error(found, run, worker.log_tail())
    try:
        answer = msgspec.convert(found, kind)
    except msgspec.ValidationError as error:
        raise _broken(worker.name, f"its answer is not as agreed: {error}") from error
    return Answer(answer, _checked_files(answer.files, folder, worker.name), folder / "output.log")


def _read_answer(folder: Path, code: int, name: str, tail: str) -> dict[str, Any]:
    path = folder / "result.json"
    try:
        sensible = not path.is_symlink() and path.stat().st_size <= MAX_ANSWER_BYTES
        values = json.loads(path.read_bytes()) if sensible else None
    except (OSError, ValueError, RecursionError) as error:
        raise NeuronError(
            f"{name}: ended with exit code {code} and no readable answer{tail}",
            remedy="The lines above are the output of the SDK's interpreter; check its environment (docs/neuron.md).",
        ) from error
    if not isinstance(values, dict) or values.get("protocol") != worker_package.PROTOCOL:
        spoken = values.get("protocol") if isinstance(values, dict) else None
        raise _broken(name, f"it uses protocol {spoken!r}, not {worker_package.PROTOCOL}")
    if code != 0 or values.get("status") not in ("ok", "error"):
        raise _broken(name, f"it ended with exit code {code} and status {values.get('status')!r}")
    return values


def _checked_files(entries: Sequence[FileEntry], folder: Path, name: str) -> dict[str, Path]:
    """Check every file that the worker reported, and return the paths by name."""
    files: dict[str, Path] = {}
    for entry in entries:
        path = folder / entry.path
        if entry.path != Path(entry.path).name or path.is_symlink() or not path.is_file():
            raise _broken(name, f"it lists {entry.path[:100]!r}, which is not a regular file in its folder")
        if path.stat().st_size != entry.size_bytes or _sha256(path) != entry.sha256:
            raise _broken(name, f"{entry.path} has changed since the worker wrote it")
        files[entry.path] = path
    return files


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _broken(name: str, what: str) -> NeuronError:
    return NeuronError(
        f"{name}: {what}",
        remedy="None of its output is used. Check that nothing else writes to its files, and report it if this happens again.",
    )


def _error(values: Mapping[str, Any], run: NeuronRun, tail: str) -> Exception:
    """Convert the worker's error code to the error for the user, with its remedy."""
    code, message = str(values.get("code")), str(values.get("message"))[:4000]
    if code == "no_device":
        return NoDevice(message)
    if code not in _ERRORS:
        return _broken("Neuron worker", f"it reports the unknown error code {code[:40]!r}")
    kind, remedy = _ERRORS[code]
    options = run.options
    shown = tail if code in ("compile_failed", "compile_timeout") else ""
    install = (
        f"{options.python} -m pip install --force-reinstall --no-deps --index-url NEURON_INDEX"
        f" {PACKAGES[options.target]}, with the index that docs/neuron.md names"
    )
    return kind(f"Neuron: {message}{shown}", remedy=remedy.format(install=install))


_ERRORS: Final[Mapping[str, tuple[type[HfexportError], str]]] = {
    "bad_job": (NeuronError, "This is a bug in hfexport, or its worker was replaced; please report it."),
    "no_sdk": (NeuronError, "Install the missing package from AWS's index: {install}."),
    "placeholder_package": (
        NeuronError,
        "The package of this name on PyPI is a placeholder. Install the real one from AWS's index: {install}.",
    ),
    "no_compiler": (NeuronError, "Install it from AWS's index: {install}."),
    "wrong_version": (
        NeuronError,
        "Create the environment as docs/neuron.md describes, and give its Python as neuron-python.",
    ),
    "checkpoint_unreadable": (
        UnsupportedError,
        "The Neuron SDK needs transformers 4, which does not read this checkpoint. Export it to ONNX or TorchScript.",
    ),
    "weights_missing": (
        UnsupportedError,
        "The Neuron SDK needs transformers 4, which uses other names for this model's weights. Export it to ONNX or TorchScript.",
    ),
    "model_failed": (
        ExportError,
        "The model fails under the SDK's torch and transformers. Export it to ONNX or TorchScript.",
    ),
    "trace_failed": (ExportError, "This model cannot be traced for Neuron. Export it to ONNX or TorchScript."),
    "unsupported_operator": (
        NeuronError,
        "Give neuron-fallback true, so that operators that the compiler does not support run on CPU.",
    ),
    "compile_timeout": (NeuronError, "Give a larger neuron-timeout, or use a machine with more cores and memory."),
    "compile_failed": (
        NeuronError,
        "The lines above are the compiler's output. Check neuron-compiler-args and the available memory.",
    ),
    "save_failed": (NeuronError, "Check that the disk has room for two more copies of the weights."),
    "run_failed": (ValidationError, "The artifact does not run in the SDK's interpreter; see docs/neuron.md."),
}
