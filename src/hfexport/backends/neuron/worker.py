"""The child of the Neuron back end: runs in the Neuron SDK's own interpreter, which cannot hold today's torch.

Run as `python -I -B -u worker.py FOLDER`. It speaks files, and only inside FOLDER: `job.json` and `inputs.npz` in;
`result.json`, `reference.npz`, `outputs.npz`, the uncompiled trace and the artifact out; what the compiler says goes to
stdout and stderr. Standard library, numpy, torch, transformers and the SDK alone; Python 3.8 to 3.11; no hfexport.

An error is one of `CODES`, with a message; the parent knows what to advise. Anything else is a bug.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import warnings
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

PROTOCOL = 1

CODES = (
    "bad_job",
    "no_sdk",
    "placeholder_package",
    "no_compiler",
    "wrong_version",
    "checkpoint_unreadable",
    "weights_missing",
    "model_failed",
    "trace_failed",
    "unsupported_operator",
    "compile_timeout",
    "compile_failed",
    "save_failed",
    "no_device",
    "run_failed",
)

SDKS: Mapping[str, Mapping[str, Any]] = {
    "inf1": {
        "module": "torch_neuron",
        "packages": ("torch-neuron", "neuron-cc"),
        "compiler": "neuron-cc",
        "torch": "1.13.",
        "python": ((3, 8), (3, 11)),
    },
    "inf2": {
        "module": "torch_neuronx",
        "packages": ("torch-neuronx", "neuronx-cc"),
        "compiler": "neuronx-cc",
        "torch": "2.",
        "python": ((3, 8), (3, 12)),
    },
}
"""What each target needs; torch by the start of its version, Python by the lowest and highest minor version."""

TRANSFORMERS = "4."

SEPARATE_WEIGHTS_BYTES = 1900000000
"""Above this the compiler's graph would pass protobuf's 2 GB; the SDK then keeps weights beside it."""

PART_MARK = "hfexport: compiling "
"""Printed with a part's name on a line before the part is handed to the SDK, so that the log can be told apart."""

DESCRIPTION_FILE = "hfexport.json"
COMPILED = "neuron::forward"
"""Kinds of nodes that run a compiled subgraph begin with this."""


class Failure(Exception):
    """An error of the closed set."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        assert code in CODES
        self.code = code


def main() -> None:
    """Do the job in the folder that the command line names, and write `result.json`, once and whole."""
    folder = Path(sys.argv[1]).resolve()
    _end_with_parent()
    os.chdir(str(folder))
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    try:
        answer = {"status": "ok", **_do(json.loads((folder / "job.json").read_text(encoding="utf-8")), folder)}
    except Failure as failure:
        answer = {"status": "error", "code": failure.code, "message": str(failure)[:4000]}
    answer["protocol"] = PROTOCOL
    staged = folder / "result.json.part"
    staged.write_text(json.dumps(answer), encoding="utf-8")
    os.replace(str(staged), str(folder / "result.json"))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # everything is written; tearing down the SDK's run time could hang


def _do(job: Any, folder: Path) -> dict[str, Any]:
    if not isinstance(job, dict) or job.get("protocol") != PROTOCOL or job.get("action") not in ACTIONS:
        raise Failure("bad_job", "this worker speaks protocol {}, not this job's".format(PROTOCOL))
    return ACTIONS[job["action"]](job, folder)


def _end_with_parent() -> None:
    """Leave a watcher that ends the whole process group when the parent does, in whatever way.

    Standard input is a pipe of which the parent alone holds the other end. The compiler is a process of its own, which
    no death signal of this one would reach.
    """
    if os.fork() == 0:
        with contextlib.suppress(OSError):
            while os.read(0, 1024):
                pass
        os.killpg(0, signal.SIGKILL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)


def probe(job: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Whether everything is there that the target needs, without doing any work.

    Returns:
        `versions`: of Python and of each package.
    """
    del folder
    sdk = SDKS[job["target"]]
    low, high = sdk["python"]
    if not low <= sys.version_info[:2] <= high:
        raise Failure(
            "wrong_version",
            "Python is {}; {} needs 3.{} to 3.{}".format(
                platform.python_version(), sdk["packages"][0], low[1], high[1]
            ),
        )
    versions = {"python": platform.python_version()}
    for package in ("torch", "transformers", "numpy", *sdk["packages"]):
        versions[package] = _version(package)
    _import_sdk(job["target"])
    for package, wanted in (("torch", sdk["torch"]), ("transformers", TRANSFORMERS)):
        if not versions[package].startswith(wanted):
            raise Failure("wrong_version", "{} is {}; {}* is needed".format(package, versions[package], wanted))
    beside = str(Path(sys.executable).parent)
    if shutil.which(sdk["compiler"], path=os.pathsep.join([beside, os.environ.get("PATH", os.defpath)])) is None:
        raise Failure(
            "no_compiler", "the compiler {} is not beside {} or in PATH".format(sdk["compiler"], sys.executable)
        )
    return {"versions": versions}


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        raise Failure("no_sdk", "package {} is not installed for {}".format(package, sys.executable)) from None


def _import_sdk(target: str) -> Any:
    """The SDK's module. What PyPI serves under its name installs, and raises on import."""
    name = SDKS[target]["module"]
    try:
        return import_module(name)
    except ImportError as error:
        code = "placeholder_package" if "wrong package" in str(error).lower() else "no_sdk"
        raise Failure(code, "import {}: {}".format(name, _first_line(error))) from None


def export(job: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Load the checkpoint, answer the probes eagerly, trace, compile and save every part.

    Args:
        job: `target`, `checkpoint`, `loader` (`auto_class`, `model_kwargs`), `threads`, `probes` (how many), `compile`
            (see `_compile`), and `parts`: each with `name`, `wrapper`, `inputs` and `outputs` (names in order) and
            `description` (JSON for the extra file).
        folder: holds inputs.npz with `{part}/trace/{input}` and `{part}/{n}/{input}`.

    Returns:
        `versions`; `files`: name, size and hash of all that was written; `parts`: for each, its `artifact` and `trace` file, the
        operators of both graphs by kind, the number of compiled subgraphs, and whether weights were kept apart.
    """
    import torch

    torch.set_num_threads(int(job["threads"]))
    sdk = _import_sdk(job["target"])
    arrays = _read_arrays(folder / "inputs.npz")
    model = _load(job)
    size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters())
    reference: dict[str, Any] = {}
    parts = []
    for part in job["parts"]:
        wrapper = _wrap(model, part)
        for number in range(int(job["probes"])):
            inputs = _tensors(arrays, "{}/{}".format(part["name"], number), part["inputs"])
            for name, array in zip(part["outputs"], _answer(wrapper, inputs)):
                reference["{}/{}/{}".format(part["name"], number, name)] = array
        example = _tensors(arrays, part["name"] + "/trace", part["inputs"])
        parts.append(_make_part(job, part, sdk, wrapper, example, size_bytes))
    _write_arrays(folder / "reference.npz", reference)
    names = ["reference.npz", *(part[key] for part in parts for key in ("artifact", "trace"))]
    versions = {package: _version(package) for package in ("torch", "transformers", *SDKS[job["target"]]["packages"])}
    return {"versions": versions, "parts": parts, "files": [_file_entry(folder / name) for name in names]}


def _make_part(
    job: Mapping[str, Any],
    part: Mapping[str, Any],
    sdk: Any,
    wrapper: Any,
    example: tuple[Any, ...],
    size_bytes: int,
) -> dict[str, Any]:
    import torch

    name, extra = part["name"], {DESCRIPTION_FILE: json.dumps(part["description"])}
    with _unless("trace_failed", "{} cannot be traced".format(name)), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(wrapper, example, check_trace=False)
    separate = size_bytes > SEPARATE_WEIGHTS_BYTES
    compiled = _compile(sdk, job, name, wrapper, example, separate)
    result = {"name": name, "artifact": name + ".neuron", "trace": name + ".trace.pt", "separate_weights": separate}
    with _unless("save_failed", "{} cannot be saved".format(name)):
        torch.jit.save(traced, result["trace"], _extra_files=extra)
        torch.jit.save(compiled, result["artifact"], _extra_files=extra)
    kinds, traced_kinds = _operators(compiled), _operators(traced)
    result["subgraphs"] = sum(count for kind, count in kinds.items() if kind.startswith(COMPILED))
    result["cpu_operators"] = {kind: count for kind, count in sorted(kinds.items()) if kind.startswith("aten::")}
    result["operators"] = {kind: count for kind, count in sorted(traced_kinds.items()) if kind.startswith("aten::")}
    return result


def _compile(
    sdk: Any, job: Mapping[str, Any], name: str, wrapper: Any, example: tuple[Any, ...], separate: bool
) -> Any:
    """Trace with the SDK. `job["compile"]` holds its arguments: see torch_neuron.trace and torch_neuronx.trace."""
    import torch

    settings = job["compile"]
    workdir = Path("compiler-{}".format(name))
    workdir.mkdir()
    arguments: dict[str, Any] = {"compiler_args": settings["compiler_args"], "compiler_workdir": str(workdir.resolve())}
    if job["target"] == "inf1":
        arguments["compiler_timeout"] = settings["timeout_s"]
        arguments["minimum_segment_size"] = settings["minimum_segment_size"]
        arguments["fallback"] = settings["fallback"]
        arguments["dynamic_batch_size"] = settings["dynamic_batch_size"]
        if settings["optimizations"]:
            arguments["optimizations"] = [getattr(sdk.Optimization, one) for one in settings["optimizations"]]
        if separate:
            arguments["separate_weights"] = True
    elif separate:
        arguments["inline_weights_to_neff"] = False
    sys.stderr.write(PART_MARK + name + "\n")
    try:
        with torch.no_grad():
            compiled = sdk.trace(wrapper, example, **arguments)
            if job["target"] == "inf2" and settings["dynamic_batch_size"]:
                compiled = sdk.dynamic_batch(compiled)
    except subprocess.TimeoutExpired as error:
        raise Failure(
            "compile_timeout", "compiling {} took longer than {} s".format(name, settings["timeout_s"])
        ) from error
    except AttributeError as error:
        # What torch_neuron.trace raises without fallback when an operator cannot be compiled.
        raise Failure("unsupported_operator", "compiling {}: {}".format(name, _first_line(error))) from error
    except (RuntimeError, TypeError, ValueError, LookupError, OSError, subprocess.SubprocessError) as error:
        raise Failure("compile_failed", "compiling {}: {}".format(name, _first_line(error))) from error
    return compiled


def _load(job: Mapping[str, Any]) -> Any:
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    loader = job["loader"]
    auto_class = getattr(transformers, loader["auto_class"])
    kwargs = dict(loader["model_kwargs"])
    try:
        if loader["bare"] and _takes_pooling(auto_class, job["checkpoint"]):
            kwargs["add_pooling_layer"] = False
        model, info = auto_class.from_pretrained(
            job["checkpoint"],
            torch_dtype=torch.float32,
            attn_implementation="eager",
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            **kwargs,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError) as error:
        raise Failure(
            "checkpoint_unreadable",
            "transformers {} cannot load the checkpoint as {}: {}".format(
                transformers.__version__, loader["auto_class"], _first_line(error)
            ),
        ) from error
    missing = sorted(info["missing_keys"])
    if missing or info["mismatched_keys"]:
        missing = missing or sorted(str(entry[0]) for entry in info["mismatched_keys"])
        raise Failure(
            "weights_missing",
            "weights that transformers {} does not find: {}".format(transformers.__version__, ", ".join(missing[:5])),
        )
    return model.eval()


def _takes_pooling(auto_class: Any, checkpoint: str) -> bool:
    """Whether the bare model would build a pooler, which is no output and whose weights may be missing."""
    import inspect

    import transformers

    config = transformers.AutoConfig.from_pretrained(checkpoint, local_files_only=True)
    model_class = auto_class._model_mapping[type(config)]
    model_class = model_class[0] if isinstance(model_class, tuple) else model_class
    return "add_pooling_layer" in inspect.signature(model_class).parameters


def _wrap(model: Any, part: Mapping[str, Any]) -> Any:
    """A module that takes and gives tensors in the recorded order; the order of forward's parameters does not count."""
    import inspect

    import torch

    takes_cache = "use_cache" in inspect.signature(model.forward).parameters

    class Positional(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
            given = dict(zip(part["inputs"], tensors))
            if takes_cache:
                given["use_cache"] = False
            outputs = self.model(**given, return_dict=True)
            return tuple(outputs[name] for name in part["outputs"])

    return Positional().eval()


def _answer(wrapper: Any, inputs: tuple[Any, ...]) -> list[Any]:
    import torch

    with _unless("model_failed", "the model fails on a probe"), torch.no_grad():
        return [output.detach().numpy() for output in wrapper(*inputs)]


def run(job: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Load an artifact as its user would and answer the probes on the device.

    Args:
        job: `target`, `artifact` (path), `part` (name), `inputs` and `outputs` (names in order), `probes` (how many).
        folder: holds inputs.npz with `{part}/{n}/{input}`.

    Returns:
        `files`: outputs.npz with `{part}/{n}/{output}`.

    Raises:
        Failure: `no_device` if the SDK's run time finds none.
    """
    import torch

    _import_sdk(job["target"])
    arrays = _read_arrays(folder / "inputs.npz")
    outputs: dict[str, Any] = {}
    try:
        module = torch.jit.load(job["artifact"])
        for number in range(int(job["probes"])):
            with torch.no_grad():
                given = module(*_tensors(arrays, "{}/{}".format(job["part"], number), job["inputs"]))
            for name, tensor in zip(job["outputs"], given):
                outputs["{}/{}/{}".format(job["part"], number, name)] = tensor.float().numpy()
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        found = not _devices() and re.search(r"Runtime could not be initialized|nrt_init|NRT", str(error))
        raise Failure("no_device" if found else "run_failed", _first_line(error)) from error
    _write_arrays(folder / "outputs.npz", outputs)
    return {"files": [_file_entry(folder / "outputs.npz")]}


def _devices() -> list[Path]:
    return sorted(Path("/dev").glob("neuron[0-9]*"))


@contextlib.contextmanager
def _unless(code: str, what: str) -> Iterator[None]:
    """Turn what a model's own code may raise into a failure of this code."""
    try:
        yield
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise Failure(code, "{}: {}: {}".format(what, type(error).__name__, _first_line(error))) from error


def _operators(module: Any) -> Counter[str]:
    """How many nodes of each kind the graph has, blocks included."""
    kinds: Counter[str] = Counter()
    waiting = list(module.inlined_graph.nodes())
    while waiting:
        node = waiting.pop()
        kinds[node.kind()] += 1
        for block in node.blocks():
            waiting.extend(block.nodes())
    return kinds


def _tensors(arrays: Mapping[str, Any], prefix: str, names: Sequence[str]) -> tuple[Any, ...]:
    import torch

    try:
        return tuple(torch.from_numpy(arrays["{}/{}".format(prefix, name)]) for name in names)
    except KeyError as error:
        raise Failure("bad_job", "inputs.npz lacks {}".format(error)) from None


def _read_arrays(path: Path) -> dict[str, Any]:
    import numpy as np

    with np.load(str(path), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    import numpy as np

    np.savez(str(path), **arrays)


def _file_entry(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return {"path": path.name, "size_bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:500] if lines else type(error).__name__


ACTIONS = {"probe": probe, "export": export, "run": run}

if __name__ == "__main__":
    main()
