"""CPU latency of variants, relative to the plain file, the model in PyTorch and the files of other tools, in turn."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cases import CASES, checkpoint
from comparison import quiet, reason
from latency import THREADS
from peers import OPTIMUM, ROOT
from process_tree import measure

__all__ = ["GOALS", "variants"]

WORKER: Final = Path(__file__).with_name("step_worker.py")
BUILDER: Final = ROOT / ".venv-genai" / "lib"
MINILM: Final = ((1, 32, 0), (1, 128, 0), (8, 32, 0), (8, 128, 0))
LLAMA: Final = ((1, 1, 128), (1, 128, 0))
EAGER: Final = "PyTorch, eager"
O2: Final = "Optimum, O2"
GENAI: Final = "GenAI model builder, fp32"

GOALS: Final = {
    "minilm": (("int8", "plain", 0.5), ("fused", O2, 1.0), ("fused", EAGER, 0.8)),
    "llama-125m": (("q4", "plain", 0.45), ("fused", GENAI, 1.0)),
}
"""Largest ratios of a variant's latency to that of another file that meet the goals, by case."""


def variants(folder: Path, runs: int) -> dict[str, Any]:
    """Return medians in ms of each run, by case, file and call; or a reason under `failed`."""
    return {"minilm": _minilm(folder, runs), "llama-125m": _llama(folder, runs)}


def _minilm(folder: Path, runs: int) -> dict[str, Any]:
    source = checkpoint(None, folder)
    places: dict[str, Path] = {EAGER: source}
    failed = _export(source, folder / "minilm", ["fused", "int8"], places)
    target = folder / "optimum-o2"
    command = [str(OPTIMUM / "optimum-cli"), "export", "onnx", "--model", str(source), "--optimize", "O2"]
    failed |= _peer(O2, [*command, "--task", "feature-extraction", str(target)], target / "model.onnx", places)
    return _timed(places, MINILM, runs) | {"failed": failed}


def _llama(folder: Path, runs: int) -> dict[str, Any]:
    case = next(case for case in CASES if case.name == "llama-125m")
    source = checkpoint(case.architecture, folder / "llama")
    places: dict[str, Path] = {}
    # The weights are random, so 4 bits lose more than in a trained model.
    options = ["--task", case.feature, "--min-similarity", "0.1"]
    failed = _export(source, folder / "llama-out", ["fused", "q4"], places, *options)
    target = folder / "genai"
    builder = next(BUILDER.glob("python*/site-packages/onnxruntime_genai/models/builder.py"), None)
    if builder is None:
        return _timed(places, LLAMA, runs) | {"failed": failed | {GENAI: "onnxruntime-genai is not installed"}}
    command = [sys.executable, str(builder), "-i", str(source), "-o", str(target), "-p", "fp32", "-e", "cpu"]
    failed |= _peer(GENAI, [*command, "-c", str(folder / "genai-cache")], target / "model.onnx", places)
    return _timed(places, LLAMA, runs) | {"failed": failed}


def _export(source: Path, output: Path, names: list[str], places: dict[str, Path], *options: str) -> dict[str, str]:
    """Export the plain file and variants, and add them to `places`; return the reason if that fails."""
    command = [sys.executable, "-m", "hfexport", "--model", str(source), "--formats", "onnx", "--output", str(output)]
    log = output.with_suffix(".log")
    result = measure([*command, "--variants", ",".join(names), *options], log=log, env=quiet(), memory=False)
    if result.exit_code != 0:
        return {"hfexport": reason(log, result.exit_code)}
    places["plain"] = output / "onnx" / "model.onnx"
    places.update({name: output / "onnx" / f"model_{name}.onnx" for name in names})
    return {}


def _peer(name: str, command: list[str], made: Path, places: dict[str, Path]) -> dict[str, str]:
    """Run another tool and add its file to `places`; return the reason if that fails."""
    if not Path(command[0]).exists():
        return {name: f"{Path(command[0]).parent.parent.name} is not installed"}
    log = made.parent.with_suffix(".log")
    result = measure(command, log=log, env=quiet(), memory=False)
    if result.exit_code != 0 or not made.exists():
        return {name: reason(log, result.exit_code)}
    places[name] = made
    return {}


def _timed(places: Mapping[str, Path], calls: tuple[tuple[int, int, int], ...], runs: int) -> dict[str, Any]:
    """Time all files in turn, each in its own process; the first run is not counted."""
    found: dict[str, list[list[float]]] = {name: [] for name in places}
    for run in range(runs + 1):
        for name, path in places.items():
            command = [sys.executable, str(WORKER), str(path), json.dumps(calls), "2", str(THREADS)]
            result = subprocess.run(command, capture_output=True, text=True, check=True, env=quiet())
            if run > 0:
                found[name].append(list(json.loads(result.stdout)))
    return {"calls": [list(call) for call in calls], "milliseconds": found}
