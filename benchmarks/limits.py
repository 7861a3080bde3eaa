"""Exports in a memory limit: a checkpoint twice as large as the limit, and half precision."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any, Final

from cases import CASES, Architecture, checkpoint
from comparison import quiet, reason
from process_tree import Measurement, measure

__all__ = ["half_precision", "large"]

LARGE_LIMIT_BYTES: Final = 1_200_000_000
HALF_LIMIT_BYTES: Final = 3_000_000_000
NO_GROUP: Final = "not run: making a memory cgroup needs root and a writable /sys/fs/cgroup"
_LARGE_BERT: Final = Architecture(
    "BertForSequenceClassification",
    "BertConfig",
    {"hidden_size": 1536, "num_hidden_layers": 21, "num_attention_heads": 24, "intermediate_size": 6144},
    max_shard_size="1GB",
    tokenizer=False,
)


def large(folder: Path) -> dict[str, Any]:
    """Export a float32 BERT of 2.6 GB to ONNX in a memory cgroup of 1.2 GB."""
    source = checkpoint(_LARGE_BERT, folder / "large")
    row = _export(source, folder / "large-out", LARGE_LIMIT_BYTES, ["--formats", "onnx"])
    shutil.rmtree(source)
    return row


def half_precision(folder: Path) -> list[dict[str, Any]]:
    """Export a bfloat16 llama of 1.1 billion parameters in a memory cgroup of 3 GB, in four ways.

    Its weights are random, which 4 bits represent worse than trained ones, so no similarity is required of `q4`.
    """
    llama = next(case for case in CASES if case.name == "llama-1.1b")
    source = checkpoint(llama.architecture, folder / "half")
    rows = []
    artifacts = {
        **{f"{dtype} onnx": ["--formats", "onnx", "--dtype", dtype] for dtype in ("fp32", "fp16")},
        "fp16 torchscript": ["--formats", "torchscript", "--dtype", "fp16"],
        "fp32 and q4 onnx": ["--formats", "onnx", "--dtype", "fp32", "--variants", "q4", "--min-similarity", "0"],
    }
    for artifact, options in artifacts.items():
        rows.append({"artifact": artifact} | _export(source, folder / "out", HALF_LIMIT_BYTES, options))
    shutil.rmtree(source)
    return rows


def _export(source: Path, output: Path, limit_bytes: int, options: list[str]) -> dict[str, Any]:
    """Run one export in a group of that limit, with no weight of the checkpoint in the page cache."""
    row: dict[str, Any] = {"limit_bytes": limit_bytes}
    group = memory_group(limit_bytes)
    if group is None:
        return {**row, "failed": NO_GROUP}
    row["size_bytes"] = sum(forget(path) for path in source.glob("*.safetensors"))
    command = [sys.executable, "-m", "hfexport", "--model", str(source), *options, "--output", str(output)]
    log = output.with_suffix(".log")
    try:
        result = _in_group(command, group, log)
    finally:
        group.rmdir()
    if result.exit_code != 0:
        return {**row, "failed": reason(log, result.exit_code)}
    manifest = json.loads((output / "hfexport.json").read_text(encoding="utf-8"))
    row["verdict"] = manifest["verdict"]
    for variant in manifest.get("variants", []):
        measures = {one["name"]: one["value"] for one in variant["quality"]["measures"]}
        row["quality"] = {name: measures[name] for name in ("mean_cosine", "kl_divergence") if name in measures}
    shutil.rmtree(output)
    return {**row, "wall_s": result.wall_s, "peak_anonymous_bytes": result.peak_anonymous_bytes}


def _in_group(command: list[str], group: Path, log: Path) -> Measurement:
    join = 'echo $$ > "$0"/cgroup.procs && exec "$@"'
    return measure(["sh", "-c", join, str(group), *command], log=log, env=quiet())


def forget(path: Path) -> int:
    """Have the page cache drop a file, so that its next reader is charged for it; returns its size in bytes."""
    with path.open("rb") as file:
        os.fsync(file)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return path.stat().st_size


def memory_group(limit_bytes: int) -> Path | None:
    """A new memory cgroup (version 1 or 2) of that limit, or `None` where none can be made."""
    root = Path("/sys/fs/cgroup")
    version_1 = (root / "memory").is_dir()
    group = (root / "memory" if version_1 else root) / f"hfexport-bench-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if version_1 else "memory.max")).write_text(str(limit_bytes))
    except OSError:
        return None
    return group
