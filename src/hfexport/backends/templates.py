"""Cache of graph templates: graphs without weights, which later exports of the same architecture fill with weights.

A template is stored under the digest of everything that its graph depends on. The exporting process reads templates
from the cache and writes new ones to a staging folder; the parent process moves those into the cache after the run.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import hfexport
from hfexport.checkpoint.safetensors_header import read_header

if TYPE_CHECKING:
    from hfexport.backends.base import ExportJob
    from hfexport.checkpoint import Checkpoint
    from hfexport.export_config import ExportConfig
    from hfexport.export_config.recipe import Recipe

__all__ = ["CACHE_LIMIT_BYTES", "SHORTCUT_SUFFIX", "Templates", "checkpoint_key", "settle", "template_key"]

CACHE_LIMIT_BYTES: Final = 2**29
"""Size limit of a cache folder; templates that were not used for longest are removed."""

SUFFIX: Final = ".template"
SHORTCUT_SUFFIX: Final = ".shortcut"
"""Suffix of files that lead from a checkpoint's files to its templates, see `hfexport.run.warm`."""
_USED: Final = ".used"
_DISTRUSTED: Final = "distrusted"
_DIGEST_BYTES: Final = hashlib.sha256().digest_size
_TEMPLATE_LIMIT_BYTES: Final = 2**28

_PACKAGES: Final = ("torch", "transformers", "onnx", "onnx-ir", "onnxscript", "numpy")
"""Packages whose code decides what a graph looks like."""

_NOT_OF_THE_GRAPH: Final = ("_name_or_path", "transformers_version", "_commit_hash")
"""Fields of a model config that do not change a graph: where the config came from."""


@dataclass(frozen=True)
class Templates:
    """Templates for one run.

    Attributes:
        cache: folder that templates are read from; nothing is written there.
        made: folder for new templates and for marks of used ones, see `settle`.
    """

    cache: Path
    made: Path

    def find(self, key: str, suffix: str = SUFFIX) -> bytes | None:
        """Return the content of a template, or of a shortcut to one; `None` if it is missing.

        Raises:
            ValueError: the file is truncated, changed, or another template's.
        """
        if (self.made / _DISTRUSTED).exists():
            return None
        try:
            with (self.cache / f"{key}{suffix}").open("rb") as file:
                stored = file.read(_TEMPLATE_LIMIT_BYTES + 1)
        except OSError:
            return None
        digest, content = stored[:_DIGEST_BYTES], stored[_DIGEST_BYTES:]
        if len(stored) > _TEMPLATE_LIMIT_BYTES or digest != _digest(key, content):
            raise ValueError("its digest does not match its content")
        return content

    def has(self, key: str, suffix: str = SUFFIX) -> bool:
        """Return whether the cache has a file under a key, without reading it."""
        return (self.cache / f"{key}{suffix}").is_file()

    def distrust(self) -> None:
        """Read no template from now on, since one of them gave a wrong graph."""
        self.made.mkdir(parents=True, exist_ok=True)
        (self.made / _DISTRUSTED).touch()

    def discard(self, key: str) -> None:
        """Remove a template that this run has made, since its artifact is wrong."""
        (self.made / f"{key}{SUFFIX}").unlink(missing_ok=True)

    def mark_used(self, key: str) -> None:
        """Record that a template was used, so that `settle` keeps it longer."""
        self.made.mkdir(parents=True, exist_ok=True)
        (self.made / f"{key}{_USED}").touch()

    def keep(self, key: str, content: bytes, suffix: str = SUFFIX) -> None:
        """Write a new template, or a shortcut to one, for `settle`; it replaces one with the same key."""
        if len(content) + _DIGEST_BYTES > _TEMPLATE_LIMIT_BYTES:
            return
        self.made.mkdir(parents=True, exist_ok=True)
        (self.made / f"{key}{suffix}").write_bytes(_digest(key, content) + content)


def _digest(key: str, content: bytes) -> bytes:
    return hashlib.sha256(key.encode() + content).digest()


def settle(made: Path, cache: Path, limit_bytes: int = CACHE_LIMIT_BYTES) -> None:
    """Move new templates into the cache, and remove the least recently used ones above `limit_bytes`.

    Each file is moved in one step, so that concurrent runs see a whole template or none.

    Args:
        made: folder that `Templates` wrote to.
        cache: cache folder; it is created if it is missing.
        limit_bytes: size limit of all templates in the cache.

    Raises:
        OSError: the cache cannot be written.
    """
    cache.mkdir(parents=True, exist_ok=True)
    for mark in made.glob(f"*{_USED}"):
        with suppress(OSError):  # another run may have removed the template
            os.utime(cache / f"{mark.stem}{SUFFIX}")
        with suppress(OSError):
            os.utime(cache / f"{mark.stem}{SHORTCUT_SUFFIX}")
    for path in _files(made):
        handle, name = tempfile.mkstemp(prefix=".hfexport-", dir=cache)
        with os.fdopen(handle, "wb") as file:
            file.write(path.read_bytes())
        Path(name).chmod(0o644)
        Path(name).replace(cache / path.name)
    _evict(cache, limit_bytes)


def _files(folder: Path) -> list[Path]:
    return [*folder.glob(f"*{SUFFIX}"), *folder.glob(f"*{SHORTCUT_SUFFIX}")]


def _evict(cache: Path, limit_bytes: int) -> None:
    found = []
    for path in _files(cache):
        with suppress(OSError):
            status = path.stat()
            found.append((status.st_mtime_ns, status.st_size, path))
    total_bytes = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total_bytes <= limit_bytes:
            return
        path.unlink(missing_ok=True)
        total_bytes -= size


def template_key(job: ExportJob, tied: Sequence[Sequence[str]], **options: str | int) -> str:
    """Return the digest of everything that decides a graph, as hexadecimal digits.

    Args:
        job: the export.
        tied: groups of names of weights that share memory in the loaded model; transformers ties some weights only if
            their values are equal.
        options: options of the back end that change the graph, such as its format and opset.
    """
    described = {
        "options": options,
        "graphs": [_without_files(config.recipe) for config in job.config.branches],
        "config": _graph_fields(job.config.config.to_dict()),
        "sentence": _dense_shapes(job.config),
        "dtype": job.dtype,
        "fixed_sizes": {**job.config.fixed_sizes, **job.fixed_sizes},
        "tied": [list(group) for group in tied],
        **_versions(),
    }
    return _hexdigest(described)


def checkpoint_key(checkpoint: Checkpoint, inputs: Mapping[str, Any]) -> str:
    """Return the digest of a checkpoint's files and of the inputs that lead to its templates of a format. Torch-free.

    It only finds a shortcut, whose template is used if it has the `template_key` of the loaded model.

    Args:
        checkpoint: opened checkpoint.
        inputs: inputs that decide what is made.
    """
    tensors = {name: (info.dtype, info.shape) for name, info in checkpoint.tensors.items()}
    described = {
        "shortcut": 1,
        "config": _graph_fields(checkpoint.config),
        "tensors": sorted(tensors.items()),
        "inputs": dict(inputs),
        **_versions(),
    }
    return _hexdigest(described)


def _versions() -> dict[str, Any]:
    """Return the versions of all code that decides a graph."""
    return {
        "packages": {name: version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "hfexport": _own_code(),
    }


def _hexdigest(described: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(_plain(described), sort_keys=True).encode()).hexdigest()


def _graph_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a model config, and of those inside it, that a graph can depend on."""
    return {
        name: _graph_fields(value) if isinstance(value, Mapping) else value
        for name, value in config.items()
        if name not in _NOT_OF_THE_GRAPH
    }


def _without_files(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe without the paths of dense layers, which differ in each run."""
    if "sentence" not in recipe:
        return dict(recipe)
    sentence = recipe["sentence"]
    dense = [{name: value for name, value in layer.items() if name != "file"} for layer in sentence["dense"]]
    return {**recipe, "sentence": {**sentence, "dense": dense}}


def _dense_shapes(config: ExportConfig) -> list[dict[str, Any]]:
    layers = config.sentence.dense if config.sentence is not None else ()
    return [{name: list(tensor.shape) for name, tensor in read_header(Path(layer.file))[0].items()} for layer in layers]


def _plain(value: Any) -> Any:
    """Return `value` as JSON with text keys; other types, such as a torch dtype, become their text."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


@functools.cache
def _own_code() -> str:
    """Return the digest of hfexport's own modules."""
    folder = Path(hfexport.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
