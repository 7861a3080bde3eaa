"""Measures hfexport side by side with `optimum-cli export onnx`, and writes docs/performance.md.

    make bench                     # everything, about 15 minutes on two cores
    .venv/bin/python benchmarks/bench.py --runs 5 --only export

Each figure is a ratio to the peer in the same run on the same machine: the two take turns, medians are compared.
The peer lives in a virtual environment of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from example import EXAMPLE_MODEL
from process_tree import Measurement, measure

ROOT = Path(__file__).resolve().parent.parent
PEER_ENVIRONMENT = ROOT / ".venv-optimum"
SHAPES = [(1, 32), (1, 128), (8, 32), (8, 128)]
THREADS = 2
MEMORY_RUNS = 2
MEBIBYTE = 2**20
MEMORY_LIMIT_BYTES = 1_200_000_000
HALF_LIMIT_BYTES = 3_000_000_000
T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each command, after one warm-up")
    parser.add_argument("--only", choices=[name for name, _ in SECTIONS], help="measure one section, and write it anew")
    arguments = parser.parse_args()
    peer = peer_command() if arguments.only in (None, "export", "latency") else []
    with tempfile.TemporaryDirectory(prefix="hfexport-bench-") as folder:
        texts = [
            section(Path(folder), peer, arguments.runs) for name, section in SECTIONS if arguments.only in (None, name)
        ]
    page = ROOT / "docs" / "performance.md"
    if arguments.only is None:
        report = "\n\n".join([heading(arguments.runs), *texts]) + "\n"
    else:
        report = with_section(page.read_text(encoding="utf-8"), texts[0])
    print(report)
    page.write_text(report, encoding="utf-8")


def with_section(page: str, section: str) -> str:
    """Return the page with one section replaced, or appended if the page does not have it."""
    title = section.partition("\n")[0]
    before, found, rest = page.partition(f"{title}\n")
    _, next_title, after = rest.partition("\n## ") if found else ("", "", "")
    return before.rstrip("\n") + f"\n\n{section}\n" + next_title + after


def heading(runs: int) -> str:
    packages = ("torch", "transformers", "onnx", "onnxruntime", "onnxscript")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    peer_versions = subprocess.run(
        [PEER_ENVIRONMENT / "bin" / "python", "-c", PEER_VERSIONS], capture_output=True, text=True, check=True
    ).stdout.strip()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return (
        "# Performance\n\n"
        "Written by `make bench`, which anyone can run; ratios below 1 mean that hfexport needs less. "
        f"Medians of {runs} runs that took turns.\n\n"
        f"- hfexport: Python {platform.python_version()}, {versions}\n"
        f"- peer: {peer_versions}\n"
        f"- machine: {platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB memory"
    )


PEER_VERSIONS = (
    "from importlib.metadata import version as v;"
    "print(', '.join(f'{n} {v(n)}' for n in ('optimum-onnx', 'torch', 'transformers', 'onnxruntime')))"
)


def peer_command() -> list[str]:
    """`optimum-cli` in its own environment, which `make bench` makes."""
    command = PEER_ENVIRONMENT / "bin" / "optimum-cli"
    if not command.exists():
        sys.exit(f"{command} is missing: `make bench` makes its environment")
    return [str(command)]


def bench_export(folder: Path, peer: Sequence[str], runs: int) -> str:
    """Wall time and peak memory of ONNX export and validation of a bert-base sized classifier."""
    checkpoint = folder / "bert-base"
    subprocess.run([sys.executable, "-c", MAKE_BERT_BASE, str(checkpoint)], check=True, env=_quiet())
    ours = [sys.executable, "-m", "hfexport", "--model", str(checkpoint), "--formats", "onnx", "--output"]
    theirs = [*peer, "export", "onnx", "--model", str(checkpoint), "--task", "text-classification"]

    def turns(count: int, *, memory: bool) -> tuple[list[Measurement], list[Measurement]]:
        return _turns(
            count,
            lambda _: _checked([*ours, str(folder / "ours")], folder / "ours.log", memory=memory),
            lambda _: _checked([*theirs, str(folder / "theirs")], folder / "theirs.log", memory=memory),
        )

    timed, sampled = turns(runs, memory=False), turns(MEMORY_RUNS, memory=True)
    rows = [
        _row("wall time, s", [[m.wall_s for m in side] for side in timed], "{:.1f}"),
        _row("peak memory of all processes, MiB", [[m.peak_bytes / MEBIBYTE for m in side] for side in sampled]),
        _row("of it anonymous, MiB", [[m.peak_anonymous_bytes / MEBIBYTE for m in side] for side in sampled]),
    ]
    return (
        "## Export\n\n"
        "`BertForSequenceClassification` at bert-base's size (438 MB of float32), to ONNX. hfexport validates at "
        "shapes and paddings that export did not see, in fresh processes; `optimum-cli export onnx` validates at the traced "
        "shape, in the exporting process. Memory is sampled over the whole process tree, in runs of their own.\n\n"
        + _table(rows)
    )


def bench_latency(folder: Path, peer: Sequence[str], runs: int) -> str:
    """CPU latency of the two ONNX artifacts of all-MiniLM-L6-v2."""
    checkpoint = str(EXAMPLE_MODEL)
    ours, theirs = folder / "minilm-ours", folder / "minilm-theirs"
    hfexport = [sys.executable, "-m", "hfexport", "--model", checkpoint, "--formats", "onnx", "--output", str(ours)]
    _checked(hfexport, folder / "ours.log")
    _checked(
        [*peer, "export", "onnx", "--model", checkpoint, "--task", "feature-extraction", str(theirs)],
        folder / "theirs.log",
    )
    results = _turns(
        runs,
        lambda _: _latency(ours / "onnx" / "model.onnx"),
        lambda _: _latency(theirs / "model.onnx"),
    )
    rows = [
        _row(f"({batch}, {sequence}), ms", [[run[index] for run in side] for side in results], "{:.2f}")
        for index, (batch, sequence) in enumerate(SHAPES)
    ]
    return (
        "## Latency\n\n"
        f"all-MiniLM-L6-v2 as plain ONNX in ONNX Runtime on CPU, {THREADS} threads, each artifact in its own process, "
        "by (batch, sequence).\n\n" + _table(rows)
    )


def bench_startup(folder: Path, peer: Sequence[str], runs: int) -> str:
    """How long a wrong input and `--help` take."""
    del peer
    rows = []
    for name, arguments, limit in (("a wrong input", ["--opset", "x"], "1.0"), ("`--help`", ["--help"], "0.5")):
        command = [sys.executable, "-m", "hfexport", *arguments]
        measure(command, log=folder / "startup.log")
        walls = [measure(command, log=folder / "startup.log").wall_s for _ in range(runs)]
        rows.append(f"| {name} | {statistics.median(walls):.2f} | {limit} |")
    return "## Start-up\n\n| | median, s | goal, s |\n|---|---|---|\n" + "\n".join(rows)


def bench_memory(folder: Path, peer: Sequence[str], runs: int) -> str:
    """Whether a checkpoint twice as large as the memory limit exports and passes validation."""
    del peer, runs
    title = "## Memory limit\n\n"
    group = memory_group(MEMORY_LIMIT_BYTES)
    if group is None:
        return title + "not run: making a memory cgroup needs root and a writable /sys/fs/cgroup"
    checkpoint, output, log = folder / "large", folder / "large-out", folder / "large.log"
    subprocess.run([sys.executable, "-c", MAKE_LARGE_BERT, str(checkpoint)], check=True, env=_quiet())
    size = sum(forget(path) for path in checkpoint.glob("*.safetensors"))
    join = 'echo $$ > "$0"/cgroup.procs && exec "$@"'
    command = [sys.executable, "-m", "hfexport", "--model", str(checkpoint), "--formats", "onnx"]
    try:
        result = measure(["sh", "-c", join, str(group), *command, "--output", str(output)], log=log, env=_quiet())
    finally:
        group.rmdir()
    if result.exit_code != 0:
        return title + f"FAILED with exit code {result.exit_code}:\n\n```\n{log.read_text(errors='replace')}\n```"
    verdict = json.loads((output / "hfexport.json").read_text())["verdict"]
    return (
        title + f"In a memory cgroup of {MEMORY_LIMIT_BYTES / 1e9:.1f} GB, a float32 BERT of {size / 1e9:.2f} GB in "
        f"shards, none of it in the page cache, exports to ONNX: verdict {verdict}, {result.wall_s:.0f} s, at most "
        f"{result.peak_anonymous_bytes / MEBIBYTE:.0f} MiB of anonymous memory over all processes."
    )


def bench_half(folder: Path, peer: Sequence[str], runs: int) -> str:
    """Anonymous memory of exports of a bfloat16 llama of 1.1 billion parameters, in a memory limit of 3 GB."""
    del peer, runs
    title = "## Half precision in bounded memory\n\n"
    checkpoint = folder / "llama"
    subprocess.run([sys.executable, "-c", MAKE_LLAMA, str(checkpoint)], check=True, env=_quiet())
    join = 'echo $$ > "$0"/cgroup.procs && exec "$@"'
    rows, size = [], 0
    for dtype, format_name in (("fp32", "onnx"), ("fp16", "onnx"), ("fp16", "torchscript")):
        group = memory_group(HALF_LIMIT_BYTES)
        if group is None:
            return title + "not run: making a memory cgroup needs root and a writable /sys/fs/cgroup"
        output, log = folder / f"llama-{dtype}-{format_name}", folder / "llama.log"
        size = sum(forget(path) for path in checkpoint.glob("*.safetensors"))
        command = [sys.executable, "-m", "hfexport", "--model", str(checkpoint), "--formats", format_name]
        command += ["--dtype", dtype, "--output", str(output)]
        try:
            result = measure(["sh", "-c", join, str(group), *command], log=log, env=_quiet())
        finally:
            group.rmdir()
        verdict = json.loads((output / "hfexport.json").read_text())["verdict"]
        shutil.rmtree(output)
        peak = f"{result.peak_anonymous_bytes / MEBIBYTE:.0f}"
        rows.append(f"| {dtype} {format_name} | {verdict} | {result.exit_code} | {peak} |")
    return (
        title
        + f"A bfloat16 llama of {size / 1e9:.2f} GB in shards, in a memory cgroup of {HALF_LIMIT_BYTES / 1e9:.1f} GB, "
        "none of it in the page cache. Anonymous memory is that of all processes together.\n\n"
        "| artifact | verdict | exit code | anonymous memory, MiB |\n|---|---|---|---|\n" + "\n".join(rows)
    )


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


def _latency(path: Path) -> list[float]:
    worker = Path(__file__).with_name("latency_worker.py")
    command = [sys.executable, str(worker), str(path), json.dumps(SHAPES), "3", str(THREADS)]
    return list(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def _turns(runs: int, ours: Callable[[int], T], theirs: Callable[[int], T]) -> tuple[list[T], list[T]]:
    """Run the two in turn, one uncounted warm-up each."""
    results: tuple[list[T], list[T]] = ([], [])
    for run in range(runs + 1):
        for side, command in zip(results, (ours, theirs), strict=True):
            result = command(run)
            if run > 0:
                side.append(result)
        time.sleep(0.5)
    return results


def _checked(command: Sequence[str], log: Path, *, memory: bool = False) -> Measurement:
    measurement = measure(command, log=log, env=_quiet(), memory=memory)
    if measurement.exit_code != 0:
        sys.exit(f"{' '.join(command)}\nexited with {measurement.exit_code}:\n{log.read_text(errors='replace')}")
    return measurement


def _quiet() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore", "GITHUB_ACTIONS": ""}


def _row(name: str, sides: Sequence[Sequence[float]], form: str = "{:.0f}") -> str:
    ours, theirs = (statistics.median(side) for side in sides)
    ratio = statistics.median(a / b for a, b in zip(*sides, strict=True))
    return f"| {name} | {form.format(ours)} | {form.format(theirs)} | {ratio:.2f} |"


def _table(rows: Sequence[str]) -> str:
    return "| | hfexport | optimum-cli | ratio |\n|---|---|---|---|\n" + "\n".join(rows)


MAKE_BERT_BASE = """
import sys, torch
from transformers import BertConfig, BertForSequenceClassification
torch.manual_seed(0)
BertForSequenceClassification(BertConfig(num_labels=2)).save_pretrained(sys.argv[1])
"""

MAKE_LARGE_BERT = """
import sys, torch
from transformers import BertConfig, BertForSequenceClassification
torch.manual_seed(0)
config = BertConfig(hidden_size=1536, num_hidden_layers=21, num_attention_heads=24, intermediate_size=6144)
BertForSequenceClassification(config).save_pretrained(sys.argv[1], max_shard_size="1GB")
"""

MAKE_LLAMA = """
import sys, torch
from transformers import LlamaConfig, LlamaForCausalLM
torch.manual_seed(0)
torch.set_default_dtype(torch.bfloat16)
sizes = dict(hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32)
config = LlamaConfig(**sizes, num_key_value_heads=4, vocab_size=32000, max_position_embeddings=2048)
LlamaForCausalLM(config).save_pretrained(sys.argv[1], max_shard_size="500MB")
"""

SECTIONS = (
    ("export", bench_export),
    ("latency", bench_latency),
    ("startup", bench_startup),
    ("memory", bench_memory),
    ("half", bench_half),
)

if __name__ == "__main__":
    main()
