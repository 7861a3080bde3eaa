"""Run an artifact or a trace in the way its user does."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, Mapping

from . import Failure
from .environment import devices, import_sdk
from .files import MODEL_FAILURES, file_entry, first_line, read_arrays, tensors_of, write_arrays


def run(job: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Load an artifact in the way its user does, and answer the probes on the device.

    Args:
        job: `target`, `artifact` (path), `part` (name), `inputs` and `outputs` (names in order), `probes` (how many).
        folder: holds inputs.npz with `{part}/{n}/{input}`.

    Returns:
        `files`: outputs.npz with `{part}/{n}/{output}`.

    Raises:
        Failure: `no_device` if the SDK's runtime finds no Neuron device.
    """
    import torch

    import_sdk(job["target"])
    arrays = read_arrays(folder / "inputs.npz")
    outputs: dict[str, Any] = {}
    try:
        module = torch.jit.load(job["artifact"])
        for number in range(int(job["probes"])):
            with torch.no_grad():
                given = module(*tensors_of(arrays, "{}/{}".format(job["part"], number), job["inputs"]))
            for name, tensor in zip(job["outputs"], given):
                outputs["{}/{}/{}".format(job["part"], number, name)] = tensor.float().numpy()
    except MODEL_FAILURES as error:
        raise _run_failure(error) from error
    write_arrays(folder / "outputs.npz", outputs)
    return {"files": [file_entry(folder / "outputs.npz")]}


def generate(job: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Generate text with an encoder and a decoder, using the runtime package in the artifact.

    Args:
        job: `target`; `runtime` (path of the package), `config` (folder), `encoder` and `decoder` (paths), `compiled`
            (whether the graphs need a device), and `calls`: arguments for each call of `generate`.
        folder: holds inputs.npz with `generation/input_ids` and `generation/attention_mask`.

    Returns:
        `files`: outputs.npz with `generation/{n}/tokens` for the n-th call.
    """
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    if job["compiled"]:
        import_sdk(job["target"])
    sys.path.insert(0, str(Path(job["runtime"]).parent))
    runtime = import_module(Path(job["runtime"]).name)
    arrays = read_arrays(folder / "inputs.npz")
    ids, mask = tensors_of(arrays, "generation", ["input_ids", "attention_mask"])
    outputs = {}
    try:
        model = runtime.load_generator(job["config"], job["encoder"], job["decoder"])
        for number, call in enumerate(job["calls"]):
            with torch.no_grad():
                tokens = model.generate(input_ids=ids, attention_mask=mask, **call)
            outputs["generation/{}/tokens".format(number)] = tokens.numpy()
    except MODEL_FAILURES as error:
        raise _run_failure(error) from error
    write_arrays(folder / "outputs.npz", outputs)
    return {"files": [file_entry(folder / "outputs.npz")]}


def _run_failure(error: BaseException) -> Failure:
    """Convert a runtime error to a `Failure`, and tell a missing device from all other causes."""
    absent = not devices() and re.search(r"Runtime could not be initialized|nrt_init|NRT", str(error))
    return Failure("no_device" if absent else "run_failed", first_line(error))
