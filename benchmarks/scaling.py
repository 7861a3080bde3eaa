"""Cost of an export by number of layers and by size of the model."""

from __future__ import annotations

import shutil
import statistics
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from cases import CASES, Architecture, checkpoint
from comparison import quiet, reason
from process_tree import measure

__all__ = ["LAYERS", "scaling"]

LAYERS: Final = (2, 4, 8, 16, 32, 64)
_NARROW: Final = {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024, "vocab_size": 8000}
_BERT_LARGE: Final = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}


def _rows() -> Iterator[tuple[str, str, Architecture | None, str]]:
    """Yield the table, the row's name, the model and the task, smallest first."""
    for layers in LAYERS:
        sizes = {**_NARROW, "num_hidden_layers": layers}
        yield "layers", str(layers), Architecture("BertModel", "BertConfig", sizes, tokenizer=False), "default"
    known = {case.name: case for case in CASES}
    bert = Architecture("BertModel", "BertConfig", tokenizer=False)
    yield "sizes", "all-MiniLM-L6-v2, 22 M", None, "default"
    yield "sizes", "bert-base, 109 M", bert, "default"
    yield "sizes", "bert-large, 335 M", replace(bert, sizes=_BERT_LARGE), "default"
    llama = known["llama-1.1b"]
    yield "sizes", "llama with past, bfloat16, 1.1 billion", llama.architecture, llama.feature


def scaling(folder: Path, runs: int) -> list[dict[str, Any]]:
    """Measure hfexport alone: one run with memory sampled, then at most three timed ones; rows that failed say why."""
    rows = []
    for table, name, architecture, task in _rows():
        place = folder / "scaling"
        source = checkpoint(architecture, place / "checkpoint")
        command = [sys.executable, "-m", "hfexport", "--model", str(source), "--formats", "onnx", "--task", task]
        command += ["--output", str(place / "out")]
        row: dict[str, Any] = {"table": table, "name": name, "size_bytes": _weights(source)}
        place.mkdir(exist_ok=True)
        results = [
            measure(command, log=place / "run.log", env=quiet(), memory=run == 0) for run in range(min(runs, 3) + 1)
        ]
        failed = next((result for result in results if result.exit_code != 0), None)
        if failed is not None:
            row["failed"] = reason(place / "run.log", failed.exit_code)
        else:
            row["wall_s"] = statistics.median(result.wall_s for result in results[1:])
            row["processor_s"] = statistics.median(result.processor_s for result in results[1:])
            row["peak_bytes"] = results[0].peak_bytes
            row["peak_anonymous_bytes"] = results[0].peak_anonymous_bytes
        rows.append(row)
        shutil.rmtree(place)
    return rows


def _weights(source: Path) -> int:
    return sum(path.stat().st_size for path in source.glob("*.safetensors"))
