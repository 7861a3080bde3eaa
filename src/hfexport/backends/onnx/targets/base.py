"""Protocol of a target, and the export that it writes files for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from hfexport.export_config import ExportConfig

__all__ = ["Divided", "Exported", "Rewritten", "Target", "write_json"]


@dataclass(frozen=True)
class Exported:
    """An export whose ONNX files are complete.

    Attributes:
        folder: the output folder, with the checkpoint's config.json and tokenizer files.
        graphs: export config of each graph, in the order in which generation runs them.
        files: all files of the plain graphs and the variants; each is below `folder`.
        variants: names of the variants that were made of every graph.
    """

    folder: Path
    graphs: tuple[ExportConfig, ...]
    files: Sequence[Path]
    variants: Sequence[str] = field(default=())

    def config_values(self) -> dict[str, Any]:
        """Return the content of config.json."""
        return dict(json.loads((self.folder / "config.json").read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Rewritten:
    """A graph that was made from a proven one, and finds the padding at the start of prompts itself.

    Attributes:
        source: file of the proven graph.
        path: file of the new graph.
        pad: padding id.
    """

    source: Path
    path: Path
    pad: int


@dataclass(frozen=True)
class Divided:
    """Two graphs that do the work of two proven ones, divided differently.

    Attributes:
        encoder: file of the proven encoder.
        decoder: file of the proven decoder, with two branches.
        new_encoder: file of an encoder that also returns the keys and values of cross-attention.
        new_decoder: file of a decoder that takes them in every call.
    """

    encoder: Path
    decoder: Path
    new_encoder: Path
    new_decoder: Path


class Target(Protocol):
    """A consumer of ONNX files."""

    @property
    def name(self) -> str:
        """Return the name in the input `target`."""
        ...

    @property
    def chunk_bytes(self) -> int | None:
        """Return the largest size of a file of external data; `None` for no limit."""
        ...

    @property
    def shares_weights(self) -> bool:
        """Return whether the consumer's own graphs share the weights, which are then in a file of external data."""
        ...

    def check(self, graphs: Sequence[ExportConfig]) -> None:
        """Check, before any work, that the consumer can load such graphs.

        Raises:
            UnsupportedError: it cannot.
        """
        ...

    def write(self, exported: Exported) -> list[Path]:
        """Write or change files in the output folder; return their paths."""
        ...

    def rewritten(self, folder: Path, files: Sequence[Path]) -> list[Rewritten | Divided]:
        """Return the graphs among `files` that this target makes, which have to be compared with the proven ones.

        Args:
            folder: output folder.
            files: files in it.

        Raises:
            ValidationError: a file that describes them is missing or wrong.
        """
        ...


def write_json(path: Path, values: Mapping[str, Any]) -> Path:
    """Write a JSON file. An existing file is replaced and not changed, since it may be a link to the checkpoint's."""
    path.unlink(missing_ok=True)
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
