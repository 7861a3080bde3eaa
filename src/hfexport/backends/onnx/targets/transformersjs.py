"""Settings in config.json with which Transformers.js loads an export.

https://github.com/huggingface/transformers.js/blob/main/packages/transformers/src/utils/model_registry/
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from hfexport.backends.onnx.targets.base import Divided, Exported, Rewritten, write_json
from hfexport.export_config import ExportConfig

__all__ = ["TransformersJs"]

BEST_FIRST: Final = ("q8", "q4", "int8", "uint8", "bnb4", "fp16")
"""Variants in the order of preference: browsers run 8-bit weights on any device, and float16 only on some."""


class TransformersJs:
    """Transformers.js, in browsers and in Node."""

    name = "transformersjs"
    chunk_bytes: int | None = 2**31 - 2**24
    """Browsers read a file into an array of less than 2 GiB."""
    shares_weights = False

    def check(self, graphs: Sequence[ExportConfig]) -> None:
        """Accept every graph."""
        del graphs

    def write(self, exported: Exported) -> list[Path]:
        """Set `transformers.js_config`: the default dtype, and the files of external data.

        Without `use_external_data_format`, no file of external data is fetched.
        """
        values = exported.config_values()
        settings: dict[str, Any] = dict(values.get("transformers.js_config") or {})
        settings["dtype"] = next((name for name in BEST_FIRST if name in exported.variants), "fp32")
        chunks = _chunks(exported.files)
        settings.pop("use_external_data_format", None)
        if chunks:
            settings["use_external_data_format"] = chunks
        return [write_json(exported.folder / "config.json", {**values, "transformers.js_config": settings})]

    def rewritten(self, folder: Path, files: Sequence[Path]) -> list[Rewritten | Divided]:
        """Return nothing: the graphs stay as they are."""
        del folder, files
        return []


def _chunks(files: Sequence[Path]) -> dict[str, int]:
    """Return the number of files of external data for each ONNX file that has any."""
    names = [path.name for path in files]
    counts = {
        name: sum(other == f"{name}_data" or other.startswith(f"{name}_data_") for other in names)
        for name in names
        if name.endswith(".onnx")
    }
    return {name: count for name, count in counts.items() if count}
