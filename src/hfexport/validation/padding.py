"""Compare a graph that finds the padding of prompts itself with the proven graph that it was made from.

The proven graph gets the mask and positions that hide the padding at the start of each prompt; the other gets a mask of ones
and positions that count the padding. Runs as a child process (see `hfexport._internal.workers`), without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from hfexport._internal import workers
from hfexport._internal.messages import read
from hfexport.backends.base import Artifact
from hfexport.export_config import ExportConfig
from hfexport.export_config.arrays import Arrays
from hfexport.validation.logits import Child, LogitsJob, answer_logits, check_logits
from hfexport.validation.messages import GraphFile

__all__ = ["PaddingJob", "check_padding", "run"]

PADDING: Final = (0, 2, 3)
"""Padding at the start of each prompt."""

LENGTH: Final = 6
STEPS: Final = 2
"""Tokens after the prompt, one in each call."""


class PaddingJob(LogitsJob, frozen=True):
    """Call two graphs on the same padded prompts.

    Attributes:
        proven: graph that was compared with the model.
        made: graph that finds the padding itself.
        pad: padding id.
    """

    proven: GraphFile
    made: GraphFile
    pad: int


def check_padding(
    proven: Artifact,
    made: Path,
    config: ExportConfig,
    pad: int,
    child: Child,
) -> None:
    """Check that a graph gives the logits of `proven` for prompts with padding at their start.

    Args:
        proven: artifact that was compared with the model.
        made: graph that finds the padding itself; its weights are those of `proven`.
        config: export config of both.
        pad: padding id.
        child: child process that runs both.

    Raises:
        ValidationError: the logits differ, or the graph does not run.
    """
    from dataclasses import replace

    from hfexport.validation.validate import graph_job

    floats = "float16" if proven.dtype == "fp16" else "float32"
    job = PaddingJob(
        proven=graph_job(proven, config, floats),
        made=graph_job(replace(proven, path=made), config, floats),
        pad=pad,
        vocabulary=config.vocabulary_size,
        weight_bytes=sum(file.stat().st_size for file in proven.files),
        threads=workers.available_cores(child.env),
    )
    finding = f"{made.name}: for prompts with padding at their start it differs from {proven.path.name}"
    check_logits(__name__, job, child, name=f"runner for {made.name}", finding=finding)


def run(values: Mapping[str, Any]) -> dict[str, Any]:
    """Call both graphs. Takes a `PaddingJob` and returns a `LogitsAnswer` for the tokens that are not padding."""
    job = read(values, PaddingJob)
    return answer_logits(_logits(job, job.proven, hides=True), _logits(job, job.made, hides=False))


def _logits(job: PaddingJob, graph: GraphFile, *, hides: bool) -> list[Any]:
    """Return the logits of the tokens of every call, as float64.

    Args:
        job: the comparison.
        graph: graph to call.
        hides: whether mask and positions hide the padding, rather than count it.
    """
    import numpy as np

    from hfexport.validation.runner import open_graph

    session = open_graph(graph, {}, format_name="onnx", weight_bytes=job.weight_bytes, threads=job.threads)
    padding = np.array(PADDING)[:, None]
    is_text = np.arange(LENGTH + STEPS) >= padding
    draw = np.random.default_rng(0)
    ids = draw.integers(0, job.vocabulary, is_text.shape)
    ids = np.where(ids == job.pad, (job.pad + 1) % job.vocabulary, ids)
    ids = np.where(is_text, ids, job.pad)
    positions = np.arange(LENGTH + STEPS) - (padding if hides else 0) + np.zeros_like(padding)
    cache = _empty_cache(graph, len(ids))
    found = []
    start = 0
    for end in range(LENGTH, LENGTH + STEPS + 1):
        given = {
            "input_ids": ids[:, start:end],
            "attention_mask": is_text[:, :end].astype(np.int64) if hides else np.ones((len(ids), end), np.int64),
            "position_ids": np.maximum(positions[:, start:end], 0),
        }
        named = {name for name, _ in graph.inputs}
        outputs = session.ask({**{name: array for name, array in given.items() if name in named}, **cache})
        cache = {name: outputs[name.replace("past_key_values", "present")] for name in cache}
        found.append(np.asarray(outputs["logits"], np.float64)[is_text[:, start:end]])
        start = end
    return found


def _empty_cache(graph: GraphFile, rows: int) -> Arrays:
    """Return a cache of no tokens."""
    import numpy as np
    import onnx

    model = onnx.load(graph.path, load_external_data=False)
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in model.graph.input}
    return {
        name: np.zeros((rows, shapes[name][1], 0, shapes[name][3]), dtype)
        for name, dtype in graph.inputs
        if name.startswith("past_key_values.")
    }
