"""Measure the median time of a call of one model file, or of the model in PyTorch, in a process of its own.

python step_worker.py PATH CALLS SECONDS THREADS    # CALLS: JSON list of (batch, sequence, past); prints ms as JSON

PATH is an ONNX file, with or without a cache, or the folder of a checkpoint without one.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Call = Callable[[int, int, int], Callable[[], Any]]


def onnx_calls(path: str, threads: int) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    shapes = {value.name: list(value.shape) for value in session.get_inputs()}
    genai = Path(path).with_name("genai_config.json")
    if genai.exists():  # its graphs do not declare the head size
        head_size = json.loads(genai.read_text(encoding="utf-8"))["model"]["decoder"]["head_size"]
        shapes = {name: [*shape[:3], head_size] if len(shape) == 4 else shape for name, shape in shapes.items()}

    def prepare(batch: int, sequence: int, past: int) -> Callable[[], Any]:
        feed = {name: drawn(name, shape, batch, sequence, past) for name, shape in shapes.items()}
        return lambda: session.run(None, feed)

    return prepare


def drawn(name: str, shape: list[Any], batch: int, sequence: int, past: int) -> np.ndarray[Any, Any]:
    """Return an input: tokens, a mask of ones, positions, or a cache (batch, heads, past, head size)."""
    rng = np.random.default_rng(0)
    if name == "input_ids":
        return rng.integers(1, 30000, (batch, sequence), dtype=np.int64)
    if name == "attention_mask":
        return np.ones((batch, past + sequence), np.int64)
    if name == "position_ids":
        return np.arange(past, past + sequence, dtype=np.int64)[None].repeat(batch, 0)
    if name == "token_type_ids":
        return np.zeros((batch, sequence), np.int64)
    return rng.standard_normal((batch, shape[1], past, shape[3])).astype(np.float32)


def torch_calls(folder: str, threads: int) -> Call:
    import torch
    import transformers

    torch.set_num_threads(threads)
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="sdpa").eval()

    def prepare(batch: int, sequence: int, past: int) -> Callable[[], Any]:
        names = ("input_ids", "attention_mask", "token_type_ids")
        feed = {name: torch.from_numpy(drawn(name, [], batch, sequence, past)) for name in names}

        def run() -> Any:
            with torch.inference_mode():
                return model(**feed)

        return run

    return prepare


def median_ms(run: Callable[[], Any], seconds: float) -> float:
    for _ in range(3):
        run()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 10:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000


def main(path: str, calls: list[tuple[int, int, int]], seconds: float, threads: int) -> None:
    prepare = (torch_calls if Path(path).is_dir() else onnx_calls)(path, threads)
    json.dump([median_ms(prepare(*call), seconds) for call in calls], sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], [tuple(call) for call in json.loads(sys.argv[2])], float(sys.argv[3]), int(sys.argv[4]))
