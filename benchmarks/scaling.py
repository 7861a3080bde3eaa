"""Cost of an export by number of layers and by size of the model."""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import time
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
LARGEST: Final = "llama with past, float16, 3.0 billion"
LARGE_BYTES: Final = 26_000_000_000
"""Free disk that the largest model needs: its checkpoint, two artifacts or copies, and its weights in float32."""

TIMEOUT_S: Final = 1800.0
_LLAMA_3B: Final = Architecture(
    "LlamaForCausalLM",
    "LlamaConfig",
    {
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "vocab_size": 32000,
        "max_position_embeddings": 2048,
    },
    dtype="float16",
    max_shard_size="2GB",
    tokenizer=False,
)


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
    yield "sizes", LARGEST, _LLAMA_3B, llama.feature


def scaling(folder: Path, runs: int) -> list[dict[str, Any]]:
    """Measure hfexport alone; rows that failed say why."""
    rows = []
    for table, name, architecture, task in _rows():
        place = folder / "scaling"
        place.mkdir(exist_ok=True)
        row: dict[str, Any] = {"table": table, "name": name, "size_bytes": 0}
        needed = LARGE_BYTES if name == LARGEST else 0
        if shutil.disk_usage(place).free < needed:
            row["failed"] = f"not run: it needs {needed / 1e9:.0f} GB of free disk"
        else:
            _measure(row, place, checkpoint(architecture, place / "checkpoint"), task, 1 if needed else min(runs, 3))
        rows.append(row)
        shutil.rmtree(place)
    return rows


def _measure(row: dict[str, Any], place: Path, source: Path, task: str, runs: int) -> None:
    """Add the figures of one model: a run with memory sampled, timed ones, and one that only writes weights."""
    row["size_bytes"] = sum(path.stat().st_size for path in source.glob("*.safetensors"))
    output, log = place / "out", place / "run.log"
    plain = [sys.executable, "-m", "hfexport", "--model", str(source), "--formats", "onnx", "--task", task]
    plain += ["--output", str(output)]
    cached = [*plain, "--cache", str(place / "cache")]
    results = []
    for number, command in enumerate((cached, *[plain] * runs, cached)):  # the first fills the cache, the last uses it
        shutil.rmtree(output, ignore_errors=True)
        results.append(measure(command, log=log, env=quiet(), memory=number == 0, timeout_s=TIMEOUT_S))
        if results[-1].exit_code != 0:
            row["failed"] = reason(log, results[-1].exit_code)
            return
    row["wall_s"] = statistics.median(result.wall_s for result in results[1:-1])
    row["processor_s"] = statistics.median(result.processor_s for result in results[1:-1])
    row["peak_bytes"] = results[0].peak_bytes
    row["peak_anonymous_bytes"] = results[0].peak_anonymous_bytes
    row |= _speeds(output)


def _speeds(output: Path) -> dict[str, float]:
    """Return the speed at which the last run wrote weights from a template, and that of a plain copy."""
    manifest = json.loads((output / "hfexport.json").read_text(encoding="utf-8"))
    (stage,) = (stage for stage in manifest["stages"] if stage["name"] == "Export to onnx")
    written = [output / file["path"] for file in manifest["artifacts"][0]["files"]]
    largest = max(written, key=lambda path: path.stat().st_size)
    copy = output / "copy"
    start = time.perf_counter()
    shutil.copyfile(largest, copy)
    copied_s = time.perf_counter() - start
    copy.unlink()
    return {
        "written_bytes_per_s": sum(path.stat().st_size for path in written) / stage["seconds"],
        "copied_bytes_per_s": largest.stat().st_size / copied_s,
    }
