"""Protocol, job and result types of the back ends, which are independent of inputs, console and publishing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hfexport.backends.formats import FORMATS, Variant
from hfexport.export_config import ExportConfig, Layout

if TYPE_CHECKING:
    from hfexport.backends.origins import StoredWeight

__all__ = ["Artifact", "Backend", "Data", "ExportJob", "Template", "TemplateBackend", "VariantMaker", "unwatched"]


def _ignore(size_bytes: int) -> None:
    del size_bytes


@contextmanager
def unwatched(name: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
    """Report no progress."""
    del name, total_bytes
    yield _ignore


@dataclass(frozen=True)
class ExportJob:
    """Description of one artifact to make. Options of one format belong to its back end.

    Attributes:
        checkpoint: folder of config.json and safetensors files.
        config: export config with names, axes and limits of inputs and outputs.
        dtype: `fp32` or `fp16`.
        folder: empty staging folder for the artifact's files.
        metadata: values stored in the artifact: `producer`, `version`, `source`, `task`.
        fixed_sizes: sizes of all free axes for a fixed-shape artifact; empty for a shape-free one.
        progress: takes a file name and the number of bytes to write, and returns a context, whose value is called with
            the number of bytes of each written part.
    """

    checkpoint: Path
    config: ExportConfig
    dtype: str
    folder: Path
    metadata: Mapping[str, str]
    fixed_sizes: Mapping[str, int] = field(default_factory=dict)
    progress: Callable[[str, int], AbstractContextManager[Callable[[int], None]]] = unwatched


@dataclass(frozen=True)
class Artifact:
    """Artifact that a back end made.

    Attributes:
        format: name of the format, see `hfexport.backends.formats`.
        path: file to load.
        files: all files of the artifact, including `path`.
        fixed_sizes: sizes of the axes that are fixed in the artifact; empty if it is shape-free.
        details: facts for the manifest, such as the opset or the number of nodes; JSON values.
        config: interface of the artifact, if it differs from the job's.
        dtype: dtype of the artifact, if it differs from the job's.
        made_template: key of the template that was made with the artifact; empty for none.
    """

    format: str
    path: Path
    files: tuple[Path, ...]
    fixed_sizes: Mapping[str, int] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    config: ExportConfig | None = None
    dtype: str = ""
    made_template: str = ""

    @property
    def name(self) -> str:
        """Return the name for messages: the format, and the file if the format makes a file for each graph."""
        return f"{self.format}/{self.path.name}" if FORMATS[self.format].one_file_each else self.format


class Data(Protocol):
    """A weight whose data can be written; see `hfexport.backends.tensors.Weight` and `hfexport.backends.origins`."""

    @property
    def name(self) -> str: ...

    @property
    def data_type(self) -> int: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def size_bytes(self) -> int: ...

    def data(self) -> memoryview:
        """Return the data in the file's layout: little-endian, row-major."""
        ...


class Backend(Protocol):
    """Makes artifacts of one format."""

    @property
    def format(self) -> str:
        """Return the name of the format."""
        ...

    @property
    def can_fix_sizes(self) -> bool:
        """Return whether an artifact that is correct only at its traced sizes can be made with fixed sizes instead."""
        ...

    def graphs(self, family: ExportConfig, layout: Layout | None) -> tuple[ExportConfig, ...]:
        """Return the graphs of a model to export, in the order in which generation runs them.

        Args:
            family: export config of the model.
            layout: requested layout of an encoder-decoder's graphs; `None` for the one that suits the format.

        Raises:
            UnsupportedError: the format has no counterpart of the model's task.
        """
        ...

    def export(self, job: ExportJob) -> Artifact:
        """Make the artifact in `job.folder`.

        Raises:
            ExportError: the model cannot be expressed in this format.
            CheckpointError, UnsupportedError: the weights do not fit the model or the task.
        """
        ...


class Template(Protocol):
    """A file without its weights. Each format has a class of its own."""

    @property
    def weights(self) -> Sequence[StoredWeight]:
        """Return the weights that the file needs, in the order in which they are written."""
        ...


class TemplateBackend(Backend, Protocol):
    """Back end that can write artifacts from templates, without torch. It only gets templates that it has decoded."""

    @property
    def suffix(self) -> str:
        """Return the end of the files' names."""
        ...

    def key(self, job: ExportJob, tied: Sequence[Sequence[str]]) -> str:
        """Return the key of an artifact's template; `tied` are the names of weights that share memory."""
        ...

    def decode(self, content: bytes) -> Any:
        """Read a `Template`.

        Raises:
            ValueError: the content is not a template of this format.
        """
        ...

    def describes(self, template: Any, config: ExportConfig, dtype: str) -> bool:
        """Return whether the description of inputs and outputs in a template is that of a graph."""
        ...

    def write(
        self,
        template: Any,
        weights: Sequence[Data],
        path: Path,
        metadata: Mapping[str, str],
        progress: Callable[[str, int], AbstractContextManager[Callable[[int], None]]],
        *,
        from_template: bool,
    ) -> Artifact:
        """Write a template with its weights.

        Args:
            template: result of `decode`.
            weights: its weights, in its order.
            path: path of the file to load.
            metadata: values to store in the file.
            progress: see `ExportJob.progress`.
            from_template: whether the template came from the cache, for the manifest.

        Raises:
            ExportError: the disk is full.
        """
        ...


class VariantMaker(Protocol):
    """Makes variants of the artifacts of one format; one is used for all variants of a run."""

    def make(self, variant: Variant, plain: Artifact, job: ExportJob) -> Artifact:
        """Write a variant of one graph beside its plain file.

        Args:
            variant: a variant of this format.
            plain: the graph's file, with its dtype.
            job: the same graph in the variant's base dtype; its folder is for temporary files.

        Returns:
            The variant, with the dtype of its inputs and outputs.

        Raises:
            ExportError, UnsupportedError: the graph has no such variant, or the disk is full.
        """
        ...

    def notes(self, variant: Variant, plain: Sequence[Artifact], made: Sequence[Artifact]) -> list[str]:
        """Return remarks for the report about a variant `made` from these plain files."""
        ...
