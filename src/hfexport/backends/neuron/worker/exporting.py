"""Export a checkpoint: load it, compute the reference outputs, trace, compile and save."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, Mapping

from . import COMPILED, DESCRIPTION_FILE, PART_MARK, SDKS, Failure
from .environment import compiler_arguments, devices, import_sdk, version_of
from .files import file_entry, first_line, read_arrays, tensors_of, time_limit, unless, write_arrays
from .models import answer, load, wrap


def export(job: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Load the checkpoint, compute the reference outputs in eager mode, then trace, compile and save every part.

    Args:
        job: `target`, `checkpoint`, `loader` (`auto_class`, `bare`, `model_kwargs`, `sentence`), `threads`, `compile`
            (the parent's `_compile_settings`), and `parts`. Each part has `name` (`model`, `encoder` or `decoder`),
            `inputs` and `outputs` (names in order), `probes` (their number) and `description` (for the extra file).
        folder: holds inputs.npz with `{part}/trace/{input}` and `{part}/{n}/{input}`.

    Returns:
        `versions`; `files`: name, size and hash of every file written; `parts`: for each part its `artifact` and
        `trace` files, the operator counts of both graphs by kind, the number of compiled subgraphs, and whether
        weights are stored separately.
    """
    import torch

    torch.set_num_threads(int(job["threads"]))
    sdk = import_sdk(job["target"], job["compile"]["compiler_args"])
    arrays = read_arrays(folder / "inputs.npz")
    model = load(job)
    apart = weights_apart(model, job["compile"]["separate_weights_bytes"])
    reference: dict[str, Any] = {}
    parts = []
    for part in job["parts"]:
        example = tensors_of(arrays, part["name"] + "/trace", part["inputs"])
        wrapper = wrap(model, part, example)
        for number in range(int(part["probes"])):
            inputs = tensors_of(arrays, "{}/{}".format(part["name"], number), part["inputs"])
            for name, array in zip(part["outputs"], answer(wrapper, inputs)):
                reference["{}/{}/{}".format(part["name"], number, name)] = array
        parts.append(_make_part(job, part, sdk, wrapper, example, apart))
    write_arrays(folder / "reference.npz", reference)
    names = ["reference.npz", *(part[key] for part in parts for key in ("artifact", "trace"))]
    versions = {package: version_of(package) for package in ("torch", "transformers", *SDKS[job["target"]]["packages"])}
    return {"versions": versions, "parts": parts, "files": [file_entry(folder / name) for name in names]}


def weights_apart(model: Any, limit_bytes: int | None) -> bool:
    """Return whether the weights are too large for the compiled graph itself; with limit `None` they never are."""
    size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters())
    return limit_bytes is not None and size_bytes > limit_bytes


def _make_part(
    job: Mapping[str, Any],
    part: Mapping[str, Any],
    sdk: Any,
    wrapper: Any,
    example: tuple[Any, ...],
    separate: bool,
) -> dict[str, Any]:
    import torch

    name, extra = part["name"], {DESCRIPTION_FILE: json.dumps(part["description"])}
    with unless("trace_failed", "{} cannot be traced".format(name)), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(wrapper, example, check_trace=False)
    compiled = _compile(sdk, job, name, wrapper, example, separate)
    kinds, traced_kinds = _operators(compiled), _operators(traced)
    if job["target"] == "inf2" and job["compile"]["dynamic_batch_size"]:
        compiled = sdk.dynamic_batch(compiled)  # after counting: it adds operators around the model's
    result = {"name": name, "artifact": name + ".neuron", "trace": name + ".trace.pt", "separate_weights": separate}
    with unless("save_failed", "{} cannot be saved".format(name)):
        torch.jit.save(traced, result["trace"], _extra_files=extra)
        torch.jit.save(compiled, result["artifact"], _extra_files=extra)
    result["subgraphs"] = sum(count for kind, count in kinds.items() if kind.startswith(COMPILED))
    result["cpu_operators"] = {kind: count for kind, count in sorted(kinds.items()) if kind.startswith("aten::")}
    result["operators"] = {kind: count for kind, count in sorted(traced_kinds.items()) if kind.startswith("aten::")}
    return result


def _compile(
    sdk: Any, job: Mapping[str, Any], name: str, wrapper: Any, example: tuple[Any, ...], separate: bool
) -> Any:
    """Trace and compile with the SDK, using the settings in `job["compile"]`."""
    import torch

    settings = job["compile"]
    workdir = Path("compiler-{}".format(name))
    workdir.mkdir()
    arguments = _inf1_arguments if job["target"] == "inf1" else _inf2_arguments
    sys.stderr.write(PART_MARK + name + "\n")
    try:
        with torch.no_grad(), time_limit(settings["timeout_s"]):
            return sdk.trace(
                wrapper, example, compiler_workdir=str(workdir.resolve()), **arguments(sdk, settings, separate)
            )
    except subprocess.TimeoutExpired as error:
        raise Failure(
            "compile_timeout", "compiling {} took longer than {} s".format(name, settings["timeout_s"])
        ) from error
    except AttributeError as error:
        # torch_neuron.trace without fallback raises this when an operator cannot be compiled.
        raise Failure("unsupported_operator", "compiling {}: {}".format(name, first_line(error))) from error
    except (RuntimeError, TypeError, ValueError, LookupError, OSError, subprocess.SubprocessError) as error:
        raise Failure("compile_failed", "compiling {}: {}".format(name, first_line(error))) from error


def _inf1_arguments(sdk: Any, settings: Mapping[str, Any], separate: bool) -> dict[str, Any]:
    """Build the arguments of `torch_neuron.trace`."""
    arguments = {
        "compiler_args": settings["compiler_args"],
        "compiler_timeout": settings["timeout_s"],
        "minimum_segment_size": settings["minimum_segment_size"],
        "fallback": settings["fallback"],
        "dynamic_batch_size": settings["dynamic_batch_size"],
    }
    if settings["optimizations"]:
        arguments["optimizations"] = [getattr(sdk.Optimization, one) for one in settings["optimizations"]]
    if separate:
        arguments["separate_weights"] = True
    return arguments


def _inf2_arguments(sdk: Any, settings: Mapping[str, Any], separate: bool) -> dict[str, Any]:
    """Build the arguments of `torch_neuronx.trace`. Newer releases need the target if there is no device."""
    arguments: dict[str, Any] = {"compiler_args": compiler_arguments(settings["compiler_args"])}
    if "cpu_backend" in inspect.signature(sdk.trace).parameters and not devices():
        arguments["cpu_backend"] = True
    if separate:
        arguments["inline_weights_to_neff"] = False
    return arguments


def _operators(module: Any) -> Counter[str]:
    """Count the graph's nodes by kind, nested blocks included."""
    kinds: Counter[str] = Counter()
    waiting = list(module.inlined_graph.nodes())
    while waiting:
        node = waiting.pop()
        kinds[node.kind()] += 1
        for block in node.blocks():
            waiting.extend(block.nodes())
    return kinds
