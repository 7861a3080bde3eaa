"""Jobs and answers of the processes that run a model or an artifact; they are checked when they are read."""

from __future__ import annotations

from typing import Literal

import msgspec

from hfexport._internal.messages import Answer, Message
from hfexport.backends.neuron.messages import GenerateCall
from hfexport.export_config.probes import Probe
from hfexport.export_config.recipe import Recipe

__all__ = [
    "Branch",
    "GraphFile",
    "PaddedReferenceJob",
    "ReferenceAnswer",
    "ReferenceGraph",
    "ReferenceJob",
    "RunnerAnswer",
    "RunnerJob",
]


class Branch(Message, frozen=True):
    """Names of the inputs and outputs of one branch of a file with several."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class GraphFile(Message, frozen=True):
    """A graph to load, with the interface that its file should have.

    Attributes:
        graph: name of the graph.
        path: file to load.
        inputs: (name, dtype) of the file's inputs in order; dtype is numpy's name.
        outputs: names of the file's outputs in order.
        branch: the branch to run; `None` if the file has one.
    """

    graph: str
    path: str
    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[str, ...]
    branch: Branch | None


class RunnerJob(Message, frozen=True):
    """Run an artifact on every probe, one at a time.

    Attributes:
        format: name of the artifact's format.
        weight_bytes: size of its files.
        threads: number of threads.
        graphs: the last is run on the probes; the others take part in generation.
        greedy_steps: steps of generation, one number per probe; 0 for a single call.
        reorders: whether rows change places during generation, one per probe.
        start_token: first token of a decoder.
        reference: folder of `inputs/{n}` and `outputs/{n}`.
        folder: folder in which `outputs/{n}` is written.
        hash_weights: write the hashes of the tensors in the last graph's file.
    """

    format: str
    weight_bytes: int
    threads: int
    graphs: tuple[GraphFile, ...]
    greedy_steps: tuple[int, ...]
    reorders: tuple[bool, ...]
    start_token: int
    reference: str
    folder: str
    hash_weights: bool


class RunnerAnswer(Answer, frozen=True):
    """Result of a `RunnerJob`.

    Attributes:
        session: kind of session, `default` or `frugal`.
        refusals: the runtime's error by number of a probe that it rejected.
        refused_again: the same for the first probe, which is run again at the end, into `outputs/again`.
    """

    session: str
    refusals: dict[str, str]
    refused_again: str


class ReferenceGraph(Message, frozen=True):
    """A graph of the model, and its probes.

    Attributes:
        recipe: see `ExportConfig.recipe`.
        probes: inputs on which it is run.
        folder: folder in which `inputs/{n}` and `outputs/{n}` are written.
    """

    recipe: Recipe
    probes: tuple[Probe, ...]
    folder: str


class ReferenceJob(Message, frozen=True):
    """Run the unpatched model on the probes of its graphs.

    Attributes:
        checkpoint: folder of the checkpoint.
        graphs: graphs that share the model.
        dtype: `fp32` or `fp16`.
        threads: number of threads.
        exact: higher precision in which the model also runs, into `exact/{n}`; `None` for none.
        exact_checkpoint: folder to load that model from.
        answered: inputs and outputs exist already.
    """

    checkpoint: str
    graphs: tuple[ReferenceGraph, ...]
    dtype: Literal["fp32", "fp16"]
    threads: int
    exact: Literal["fp32", "fp64"] | None
    exact_checkpoint: str
    answered: bool


class ReferenceAnswer(Answer, frozen=True):
    """Result of a `ReferenceJob`.

    Attributes:
        probes: names of the probes that were run.
        versions: of torch and transformers.
        left_out: names of outputs that are not compared, by graph.
    """

    probes: tuple[str, ...] = ()
    versions: dict[str, str] = msgspec.field(default_factory=dict)
    left_out: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)


class PaddedReferenceJob(Message, frozen=True):
    """Run the unpatched encoder-decoder on the probes of graphs of fixed sizes, and generate.

    Attributes:
        checkpoint: folder of the checkpoint.
        sizes: sizes of the axes of `encoder` and `decoder`.
        calls: calls of `generate`.
        threads: number of threads.
        folder: folder in which `{part}/inputs/{n}` and `{part}/outputs/{n}` are written; for part `generation`, these
            are the input text and the tokens of the n-th call.
    """

    checkpoint: str
    sizes: dict[str, dict[str, int]]
    calls: tuple[GenerateCall, ...]
    threads: int
    folder: str
