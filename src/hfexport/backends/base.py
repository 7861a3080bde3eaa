"""Protocol, job and result types of the back ends, which are independent of inputs, console and publishing."""

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
    """Description of one artifact to make.

    Attributes:
        checkpoint: folder of config.json and safetensors files.
        config: export config with names, axes and limits of inputs and outputs.
        dtype: `fp32` or `fp16`.
        folder: empty staging folder for the artifact's files.
        metadata: values stored in the artifact: `producer`, `version`, `source`, `task`.
        opset: ONNX opset.
        external_data: write ONNX weights to a separate file even below 2 GB.
        fixed_sizes: sizes of all free axes for a fixed-shape artifact; empty for a shape-free one.
        neuron: compiler options and interpreter, for format `neuron`.
        model: model in memory whose weights are exported instead of a checkpoint's; only for ONNX.
        progress: takes the size of the weights to write in bytes and returns a context, whose value is called with the
            size of each written weight.
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
    """Artifact that a back end made.

    Attributes:
        format: `onnx`, `torchscript` or `neuron`.
        path: file to load.
        files: all files of the artifact, including `path`.
        fixed_sizes: sizes of the axes that are fixed in the artifact; empty if it is shape-free.
        details: facts for the manifest, such as the opset or the number of nodes; JSON values.
        config: interface of the artifact, if it differs from the job's.
        dtype: dtype of the artifact, if it differs from the job's.
    """

    format: str
    path: Path
    files: tuple[Path, ...]
    fixed_sizes: Mapping[str, int] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    config: ExportConfig | None = None
    dtype: str = ""


class Backend(Protocol):
    """Interface of a back end, which makes artifacts of one format."""

    format: str

    def export(self, job: ExportJob) -> Artifact:
        """Make the artifact in `job.folder`.

        Raises:
            ExportError: the model cannot be expressed in this format.
            CheckpointError, UnsupportedError: the weights do not fit the model or the task.
        """
        ...
