"""Measure the median latency of one ONNX artifact at given shapes, in a separate process. Prints JSON to stdout."""

from __future__ import annotations

import json
import statistics
import sys
import time

import numpy as np
import onnxruntime


def main(path: str, shapes: list[tuple[int, int]], seconds: float, threads: int) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = {value.name for value in session.get_inputs()}
    medians = []
    for batch, sequence in shapes:
        rng = np.random.default_rng(0)
        feed = {
            "input_ids": rng.integers(1, 30000, (batch, sequence), dtype=np.int64),
            "attention_mask": np.ones((batch, sequence), dtype=np.int64),
            "token_type_ids": np.zeros((batch, sequence), dtype=np.int64),
        }
        feed = {name: value for name, value in feed.items() if name in names}
        for _ in range(5):
            session.run(None, feed)
        times: list[float] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(times) < 10:
            start = time.perf_counter()
            session.run(None, feed)
            times.append(time.perf_counter() - start)
        medians.append(statistics.median(times) * 1000)
    json.dump(medians, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], [tuple(shape) for shape in json.loads(sys.argv[2])], float(sys.argv[3]), int(sys.argv[4]))
