"""The parent's side of the Neuron worker's files: start it, wait, and believe nothing it says before it is checked."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hfexport._internal import workers
from hfexport.backends.neuron import worker as worker_package
from hfexport.backends.neuron.options import PACKAGES, NeuronRun
from hfexport.errors import ExportError, HfexportError, NeuronError, UnsupportedError, ValidationError

__all__ = ["START_S", "Answer", "NoDevice", "ask", "expect"]

START_S: Final = 600.0
"""What the SDK's interpreter may take for everything but compiling: importing, loading, tracing, answering probes."""

MAX_ANSWER_BYTES: Final = 1 << 22

_ROOT: Final = Path(worker_package.__file__).resolve().parent.parent
_BOOTSTRAP: Final = (
    "import sys; root = sys.argv.pop(1); sys.path.insert(0, root); import worker; sys.path.remove(root); "
    "from worker.main import main; main()"
)
"""Finds the worker's package by its folder, and leaves nothing beside it in the path to shadow other modules."""


class NoDevice(Exception):
    """The SDK's run time found no Neuron device; says what it said."""


@dataclass(frozen=True)
class Answer:
    """What the worker made, checked.

    Attributes:
        values: its answer.
        files: what it wrote, by name; each is inside the folder and has the size and hash that were announced.
        log: what it and the compiler printed.
    """

    values: Mapping[str, Any]
    files: Mapping[str, Path]
    log: Path


def ask(run: NeuronRun, job: Mapping[str, Any], folder: Path, *, timeout_s: float) -> Answer:
    """Have the SDK's interpreter do `job` in `folder`.

    Args:
        run: the interpreter, the environment, and who listens.
        job: `action` and what belongs to it; see `hfexport.backends.neuron.worker`.
        folder: for the files of both sides; inputs.npz is there already, if the action needs it.
        timeout_s: when to end it.

    Raises:
        NoDevice: action `run` found none.
        NeuronError: the environment lacks something, the compiler failed, or the worker broke the protocol.
        HfexportError: what else the worker's error code stands for.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    header = {"protocol": worker_package.PROTOCOL, "target": run.options.target}
    (folder / "job.json").write_text(json.dumps({**header, **job}), encoding="utf-8")
    python = run.options.python
    env = workers.child_environment(run.env)
    # The SDK looks its compiler up in PATH; this environment's own comes first.
    env["PATH"] = os.pathsep.join([str(python.parent), env.get("PATH", os.defpath)])
    for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
        env.pop(name, None)  # of the interpreter that runs hfexport, not of this one
    command = [str(python), "-I", "-B", "-u", "-c", _BOOTSTRAP, str(_ROOT), str(folder)]
    name = f"Neuron worker ({job['action']})"
    start = time.monotonic()
    try:
        worker = workers.launch(command, name=name, folder=folder, env=env, failure=NeuronError, tied=True)
    except OSError as error:
        raise NeuronError(
            f"neuron-python is {str(python)!r}, which cannot be started: {error.strerror}",
            remedy="Name the Python of the environment that holds the Neuron SDK; docs/neuron.md says how to make one.",
        ) from error
    with worker:
        run.listen(worker.follow(timeout_s))
        code = worker.wait(max(0.1, timeout_s - (time.monotonic() - start)))
        values = _read_answer(folder, code, worker.name, worker.log_tail())
    if values["status"] == "error":
        raise _error(values, run, worker.log_tail())
    return Answer(values, _checked_files(values.get("files", []), folder, worker.name), folder / "output.log")


def _read_answer(folder: Path, code: int, name: str, tail: str) -> dict[str, Any]:
    path = folder / "result.json"
    try:
        sensible = not path.is_symlink() and path.stat().st_size <= MAX_ANSWER_BYTES
        values = json.loads(path.read_bytes()) if sensible else None
    except (OSError, ValueError, RecursionError) as error:
        raise NeuronError(
            f"{name}: ended with exit code {code} and no readable answer{tail}",
            remedy="The lines above say what the SDK's interpreter was doing; check its environment (docs/neuron.md).",
        ) from error
    if not isinstance(values, dict) or values.get("protocol") != worker_package.PROTOCOL:
        spoken = values.get("protocol") if isinstance(values, dict) else None
        raise _broken(name, f"it speaks protocol {spoken!r}, not {worker_package.PROTOCOL}")
    if code != 0 or values.get("status") not in ("ok", "error"):
        raise _broken(name, f"it ended with exit code {code} and status {values.get('status')!r}")
    return values


def _checked_files(entries: Any, folder: Path, name: str) -> dict[str, Path]:
    """Every file that the worker announced, if it is what it should be."""
    if not isinstance(entries, list):
        raise _broken(name, "its list of files is none")
    files: dict[str, Path] = {}
    for entry in entries:
        try:
            file_name, size_bytes, digest = str(entry["path"]), int(entry["size_bytes"]), str(entry["sha256"])
        except (TypeError, KeyError, ValueError) as error:
            raise _broken(name, f"it announces a file as {str(entry)[:100]!r}") from error
        path = folder / file_name
        if file_name != Path(file_name).name or path.is_symlink() or not path.is_file():
            raise _broken(name, f"it announces {file_name[:100]!r}, which is no plain file in its folder")
        if path.stat().st_size != size_bytes or _sha256(path) != digest:
            raise _broken(name, f"{file_name} is not what it was when the worker wrote it")
        files[file_name] = path
    return files


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _broken(name: str, what: str) -> NeuronError:
    return NeuronError(
        f"{name}: {what}",
        remedy="Nothing it made is used. Check that nothing else writes to its files, and report it if this stays.",
    )


def _error(values: Mapping[str, Any], run: NeuronRun, tail: str) -> Exception:
    """The error that a code of the worker's stands for, with what to do about it."""
    code, message = str(values.get("code")), str(values.get("message"))[:4000]
    if code == "no_device":
        return NoDevice(message)
    if code not in _ERRORS:
        return _broken("Neuron worker", f"it reports an error {code[:40]!r} that is none of its own")
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
    "no_sdk": (NeuronError, "Install what is missing, from AWS's index: {install}."),
    "placeholder_package": (
        NeuronError,
        "What PyPI serves under this name is a placeholder. Replace it by the real one, from AWS's index: {install}.",
    ),
    "no_compiler": (NeuronError, "Install it from AWS's index: {install}."),
    "wrong_version": (
        NeuronError,
        "Make the environment as docs/neuron.md says, and give its Python as neuron-python.",
    ),
    "checkpoint_unreadable": (
        UnsupportedError,
        "The Neuron SDK needs transformers 4, which does not read this checkpoint. Export it to ONNX or TorchScript.",
    ),
    "weights_missing": (
        UnsupportedError,
        "The Neuron SDK needs transformers 4, which names this model's weights otherwise. Export it to ONNX or TorchScript.",
    ),
    "model_failed": (
        ExportError,
        "The model fails under the SDK's torch and transformers. Export it to ONNX or TorchScript.",
    ),
    "trace_failed": (ExportError, "This model cannot be traced for Neuron. Export it to ONNX or TorchScript."),
    "unsupported_operator": (
        NeuronError,
        "Give neuron-fallback true, so that operators which the compiler does not know run on CPU.",
    ),
    "compile_timeout": (NeuronError, "Give a larger neuron-timeout, or use a machine with more cores and memory."),
    "compile_failed": (
        NeuronError,
        "The lines above are the compiler's. Look at neuron-compiler-args, and at the memory that compiling needs.",
    ),
    "save_failed": (NeuronError, "Check that the disk has room for two more copies of the weights."),
    "run_failed": (ValidationError, "What was made does not run in the SDK's interpreter; see docs/neuron.md."),
}


def expect(values: Mapping[str, Any], key: str, kind: type | tuple[type, ...], name: str) -> Any:
    """A value of the worker's answer, if it is of this kind."""
    value = values.get(key)
    if not isinstance(value, kind):
        raise _broken(name, f"its answer has {key} {str(value)[:60]!r}")
    return value
