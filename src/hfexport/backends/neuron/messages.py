"""Jobs and answers of the Neuron worker. The worker, whose Python is older, reads and writes them as plain JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from hfexport._internal.messages import Message
from hfexport.runtime.artifacts import DescriptionValues

__all__ = [
    "Compile",
    "CompiledPart",
    "ExportAnswer",
    "ExportRequest",
    "FileEntry",
    "GenerateCall",
    "GenerateRequest",
    "Loader",
    "PartRequest",
    "ProbeAnswer",
    "ProbeRequest",
    "Request",
    "RunRequest",
    "WorkerAnswer",
]


class Request(Message, frozen=True, tag_field="action"):
    """Base of the jobs; `action` names the function of the worker that does it."""


class ProbeRequest(Request, frozen=True, tag="probe"):
    """Check that everything that the target needs is installed."""


class Loader(Message, frozen=True):
    """How to load the checkpoint.

    Attributes:
        auto_class: auto class of transformers.
        bare: whether to load the model without a pooler.
        model_kwargs: arguments of `from_pretrained`.
        sentence: modules of sentence-transformers, and `code`, the file that computes them; `None` for none.
    """

    auto_class: str
    bare: bool
    model_kwargs: dict[str, Any]
    sentence: dict[str, Any] | None


class Compile(Message, frozen=True):
    """Settings of the compiler, see `NeuronOptions`. The last three exist for Inf1 only."""

    compiler_args: tuple[str, ...]
    timeout_s: int
    dynamic_batch_size: bool
    separate_weights_bytes: int | None
    minimum_segment_size: int | msgspec.UnsetType = msgspec.UNSET
    fallback: bool | msgspec.UnsetType = msgspec.UNSET
    optimizations: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET


class PartRequest(Message, frozen=True):
    """A graph to compile.

    Attributes:
        name: `model`, `encoder` or `decoder`.
        inputs: names of its inputs in order.
        outputs: names of its outputs in order.
        probes: number of its probes in inputs.npz.
        description: content of the extra file in the artifact.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    probes: int
    description: DescriptionValues


class ExportRequest(Request, frozen=True, tag="export"):
    """Load a checkpoint, run the probes, then trace, compile and save every part."""

    checkpoint: str
    loader: Loader
    threads: int
    compile: Compile
    parts: tuple[PartRequest, ...]


class RunRequest(Request, frozen=True, tag="run"):
    """Run an artifact or a trace on the probes of a part."""

    artifact: str
    part: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    probes: int


class GenerateCall(Message, frozen=True):
    """Arguments of a call of `generate`."""

    max_length: int
    num_beams: int
    do_sample: bool = False


class GenerateRequest(Request, frozen=True, tag="generate"):
    """Generate text with an encoder and a decoder.

    Attributes:
        runtime: path of the artifact's runtime package.
        config: folder with config.json.
        encoder: graph of the encoder.
        decoder: graph of the decoder.
        compiled: whether the graphs need a device.
        calls: calls of `generate`.
    """

    runtime: str
    config: str
    encoder: str
    decoder: str
    compiled: bool
    calls: tuple[GenerateCall, ...]


class FileEntry(msgspec.Struct, frozen=True):
    """A file that the worker wrote: its name in the job's folder, its size and its SHA-256."""

    path: str
    size_bytes: int
    sha256: str


class WorkerAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the answers of jobs that were done.

    Attributes:
        network: how the worker was cut off from the network.
        files: files that it wrote.
    """

    network: str = ""
    files: tuple[FileEntry, ...] = ()


class ProbeAnswer(WorkerAnswer, frozen=True):
    """Result of a `ProbeRequest`: versions of Python and of each package."""

    versions: dict[str, str]


class CompiledPart(msgspec.Struct, frozen=True):
    """A compiled graph.

    Attributes:
        name: name of the part.
        subgraphs: number of compiled subgraphs.
        operators: operators of the traced graph by kind.
        cpu_operators: operators that stayed on CPU, by kind.
        separate_weights: whether the weights are stored beside the graph.
    """

    name: str
    subgraphs: int
    operators: dict[str, int]
    cpu_operators: dict[str, int]
    separate_weights: bool


class ExportAnswer(WorkerAnswer, frozen=True):
    """Result of an `ExportRequest`: versions of the packages used, and one entry per part."""

    versions: dict[str, str]
    parts: tuple[CompiledPart, ...]
