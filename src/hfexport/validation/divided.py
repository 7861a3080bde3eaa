"""Compare an encoder and a decoder that divide the work differently with the proven graphs that they were made from.

The new encoder returns the keys and values of cross-attention, which the proven decoder computes in its first call. Runs
as a child process (see `hfexport._internal.workers`), without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hfexport._internal import workers
from hfexport._internal.messages import read
from hfexport.backends.base import Artifact
from hfexport.export_config import ExportConfig
from hfexport.export_config.arrays import Arrays
from hfexport.validation.logits import MAX_SHARE, Child, LogitsJob, answer_logits, check_logits
from hfexport.validation.messages import GraphFile

if TYPE_CHECKING:
    from hfexport.validation.sessions import Session

__all__ = ["MAX_SHARE_OF_VARIANT", "DividedJob", "check_divided", "run"]

MAX_SHARE_OF_VARIANT: Final = 3e-2
"""Like `MAX_SHARE`, for a variant: rounding to 8 bits makes a step of the last bit of an activation."""

ROWS: Final = 2
PROMPT: Final = 4
STEPS: Final = 2
"""Tokens after the prompt, one in each call."""


class DividedJob(LogitsJob, frozen=True):
    """Call two pairs of graphs on the same sound and tokens.

    Attributes:
        encoder: proven encoder.
        begins: first branch of the proven decoder.
        goes_on: its second branch.
        new_encoder: encoder with the keys and values of cross-attention.
        new_decoder: decoder for all calls.
        features: shape of the encoder's input without the batch.
        heads: heads of the decoder, and their size.
    """

    encoder: GraphFile
    begins: GraphFile
    goes_on: GraphFile
    new_encoder: GraphFile
    new_decoder: GraphFile
    features: tuple[int, ...]
    heads: tuple[int, int]


def check_divided(
    proven: Sequence[tuple[Artifact, ExportConfig]],
    made: tuple[Path, Path],
    child: Child,
    *,
    is_variant: bool,
) -> None:
    """Check that a new encoder and decoder give the logits of the proven ones.

    Args:
        proven: encoder and merged decoder that were compared with the model.
        made: new encoder and new decoder; their weights are those of `proven`.
        child: child process that runs both.
        is_variant: whether they are variants, whose arithmetic may be rounded to 8 bits.

    Raises:
        ValidationError: the logits differ, or a graph does not run.
    """
    check_logits(
        __name__,
        _job(proven, made, workers.available_cores(child.env)),
        child,
        name=f"runner for {made[1].name}",
        finding=f"{made[0].name} and {made[1].name}: their logits differ from those of {proven[0][0].path.name} and"
        f" {proven[1][0].path.name}",
        max_share=MAX_SHARE_OF_VARIANT if is_variant else MAX_SHARE,
    )


def _job(proven: Sequence[tuple[Artifact, ExportConfig]], made: tuple[Path, Path], threads: int) -> DividedJob:
    from hfexport.validation.validate import graph_job

    (encoder, encoder_config), (decoder, decoder_config) = proven
    decoder = replace(decoder, config=decoder_config)
    floats = "float16" if encoder.dtype == "fp16" else "float32"
    begins, goes_on = decoder_config.branches
    plain_encoder = graph_job(encoder, encoder_config, floats)
    cross = tuple(spec.name for spec in begins.outputs if ".encoder." in spec.name)
    keys = next(spec for spec in goes_on.inputs if spec.role == "past_key")
    (features,) = encoder_config.inputs
    return DividedJob(
        encoder=plain_encoder,
        begins=graph_job(decoder, begins, floats),
        goes_on=graph_job(decoder, goes_on, floats),
        new_encoder=GraphFile(
            graph=encoder_config.graph,
            path=str(made[0].absolute()),
            inputs=plain_encoder.inputs,
            outputs=(*plain_encoder.outputs, *cross),
            branch=None,
        ),
        new_decoder=graph_job(replace(decoder, path=made[1], config=None), goes_on, floats),
        features=tuple(int(size) for size in features.axes[1:]),
        heads=(int(keys.axes[1]), int(keys.axes[3])),
        vocabulary=decoder_config.vocabulary_size,
        weight_bytes=sum(file.stat().st_size for artifact in (encoder, decoder) for file in artifact.files),
        threads=threads,
    )


def run(values: Mapping[str, Any]) -> dict[str, Any]:
    """Call both pairs. Takes a `DividedJob` and returns a `LogitsAnswer`."""
    import numpy as np

    from hfexport.validation.runner import open_graph

    job = read(values, DividedJob)
    files: dict[str, Session] = {}

    def opened(graph: GraphFile) -> Session:
        return open_graph(graph, files, format_name="onnx", weight_bytes=job.weight_bytes, threads=job.threads)

    draw = np.random.default_rng(0)
    dtype = job.encoder.inputs[0][1]
    features = draw.standard_normal((ROWS, *job.features)).astype(dtype)
    tokens = draw.integers(0, job.vocabulary, (ROWS, PROMPT + STEPS))
    name = job.encoder.inputs[0][0]
    states = opened(job.encoder).ask({name: features})[job.encoder.outputs[0]]
    wanted = _generate((opened(job.begins), opened(job.goes_on)), tokens, {"encoder_hidden_states": states})
    found = opened(job.new_encoder).ask({name: features})
    empty = np.zeros((ROWS, job.heads[0], 0, job.heads[1]), dtype)
    cache = {one: empty for one, _ in job.new_decoder.inputs if ".decoder." in one}
    cross = {one.replace("present", "past_key_values"): array for one, array in found.items() if ".encoder." in one}
    decoder = opened(job.new_decoder)
    return answer_logits(wanted, _generate((decoder, decoder), tokens, {**cache, **cross}))


def _generate(decoders: tuple[Session, Session], tokens: Any, given: Arrays) -> list[Any]:
    """Return the logits of every call, as float64.

    Args:
        decoders: graph of the first call, and of all others.
        tokens: (rows, tokens); the first call takes `PROMPT` of them, all others one.
        given: further inputs of the first call. Later calls get the keys and values that earlier calls returned, and
            those that were given.
    """
    import numpy as np

    cache = {name: array for name, array in given.items() if name.startswith("past_key_values.")}
    logits = []
    for number in range(STEPS + 1):
        new = tokens[:, :PROMPT] if number == 0 else tokens[:, PROMPT + number - 1 : PROMPT + number]
        outputs = decoders[min(number, 1)].ask({"input_ids": new, **(given if number == 0 else cache)})
        logits.append(np.asarray(outputs["logits"], np.float64))
        returned = {name: array for name, array in outputs.items() if name.startswith("present.")}
        cache |= {name.replace("present", "past_key_values"): array for name, array in returned.items()}
    return logits
