"""Runs one artifact as its user would, in a fresh process that did not make it, and writes down what it answers.

Runs as a child (see `hfexport.workers`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfexport.validation.arrays import read_arrays, write_arrays
from hfexport.validation.generation import next_inputs
from hfexport.validation.sessions import Expected, Refusal, Session, open_session

__all__ = ["run"]

Arrays = dict[str, NDArray[Any]]


def run(job: Mapping[str, Any]) -> dict[str, Any]:
    """Ask the artifact every probe, one at a time.

    Args:
        job: `format`, `path`, `weight_bytes`, `threads`; `inputs` as (name, dtype) and `outputs` as names, the interface
            it should have; `greedy_steps`, a number a probe; `reference`, a folder with `inputs/{n}` and `outputs/{n}`;
            `folder`, under which `outputs/{n}` is written.

    Returns:
        `session`: how it was run; `refusals`: probe number -> what its run time said, for probes it did not answer.

    Raises:
        ValidationError: the artifact does not load, or its interface is another.
    """
    expected = Expected(Path(job["path"]), [(name, dtype) for name, dtype in job["inputs"]], job["outputs"])
    session = open_session(job["format"], expected, int(job["weight_bytes"]), int(job["threads"]))
    reference = Path(job["reference"])
    refusals: dict[str, str] = {}
    for number, steps in enumerate(job["greedy_steps"]):
        inputs = read_arrays(reference / "inputs" / str(number))
        try:
            if steps:
                tokens = np.asarray(read_arrays(reference / "outputs" / str(number))["tokens"])
                outputs = _decode(session, inputs, tokens)
            else:
                outputs = session.ask(inputs)
        except Refusal as refusal:
            refusals[str(number)] = str(refusal)
            continue
        write_arrays(Path(job["folder"]) / "outputs" / str(number), outputs)
    return {"session": session.kind, "refusals": refusals}


def _decode(session: Session, prompt: Arrays, reference_tokens: NDArray[Any]) -> Arrays:
    """Decode greedily through the artifact's own cache.

    Each step goes on with the model's token: where the artifact chose the same one, as it must unless two are tied,
    that is its own; at a tie it keeps the steps comparable.

    Args:
        session: the artifact.
        prompt: inputs of the first call.
        reference_tokens: (batch, steps), what the model chose.

    Returns:
        As the reference's: `tokens`, `logits`, and the cache after the last call.
    """
    inputs, steps = prompt, reference_tokens.shape[1]
    tokens: list[NDArray[Any]] = []
    logits: list[NDArray[Any]] = []
    for step in range(steps):
        outputs = session.ask(inputs)
        if outputs["logits"].ndim != 3 or not outputs["logits"].size:
            raise Refusal(f"greedy step {step}: logits have shape {outputs['logits'].shape}")
        logits.append(outputs["logits"][:, -1])
        tokens.append(logits[-1].argmax(axis=-1))
        if step + 1 < steps:
            inputs = next_inputs(inputs, outputs, reference_tokens[:, step])
    cache = {name: array for name, array in outputs.items() if name.startswith("present.")}
    return {"tokens": np.stack(tokens, axis=1), "logits": np.stack(logits, axis=1), **cache}
