"""What every back end takes and gives. Back ends know nothing of inputs, console or publishing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hfexport.export_config import ExportConfig

if TYPE_CHECKING:
    from hfexport.backends.neuron.options import NeuronRun

__all__ = ["Artifact", "Backend", "ExportJob"]


def _tell_nobody(size_bytes: int) -> None:
    del size_bytes


@contextmanager
def _unwatched(total_bytes: int) -> Iterator[Callable[[int], None]]:
    del total_bytes
    yield _tell_nobody


@dataclass(frozen=True)
class ExportJob:
    """One artifact to make.

    Attributes:
        checkpoint: folder with config.json and safetensors files.
        config: names, axes and limits of inputs and outputs.
        dtype: `fp32` or `fp16`.
        folder: an empty staging folder for this artifact's files.
        metadata: written into the artifact: `producer`, `version`, `source`, `task`.
        opset: ONNX opset.
        external_data: write ONNX weights beside the graph even below 2 GB.
        fixed_sizes: sizes of all free axes, for an artifact of fixed shape; empty for a shape-free one.
        neuron: how to compile, and in which interpreter; for format `neuron`.
        model: a model in memory whose weights are exported instead of a checkpoint's; ONNX alone.
        progress: takes the bytes of weights that are going to be written and gives a context, whose value is told the
            bytes of each weight that was written.
    """

    checkpoint: Path
    config: ExportConfig
    dtype: str
    folder: Path
    metadata: Mapping[str, str]
    opset: int
    external_data: bool = False
    fixed_sizes: Mapping[str, int] = field(default_factory=dict)
    neuron: NeuronRun | None = None
    model: Any = None
    progress: Callable[[int], AbstractContextManager[Callable[[int], None]]] = _unwatched


@dataclass(frozen=True)
class Artifact:
    """What a back end made.

    Attributes:
        format: `onnx`, `torchscript` or `neuron`.
        path: the file to load.
        files: all files of the artifact, `path` among them.
        fixed_sizes: sizes of the axes that the artifact holds fixed; empty if it is shape-free.
        details: facts for the manifest, such as the opset or the number of nodes; JSON values.
        config: its interface, if that is not the job's.
        dtype: its dtype, if that is not the job's.
    """

    format: str
    path: Path
    files: tuple[Path, ...]
    fixed_sizes: Mapping[str, int] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    config: ExportConfig | None = None
    dtype: str = ""


class Backend(Protocol):
    """Makes artifacts of one format."""

    format: str

    def export(self, job: ExportJob) -> Artifact:
        """Make the artifact in `job.folder`.

        Raises:
            ExportError: the model cannot be expressed in this format.
            CheckpointError, UnsupportedError: the weights do not fit the model or the task.
        """
        ...
