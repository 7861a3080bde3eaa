"""Sample the main thread of every process of a run, and append the seconds of each stage to a file when it ends.

`stages.py` puts this folder into PYTHONPATH, and the path of the file into TZ, which child processes of hfexport keep.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from types import FrameType
from typing import Any, NoReturn

MARK = "stages:"
INTERVAL_S = 0.01

RULES = (
    ("_internal/standby.py", ("_become", "main"), "waits for its job"),
    ("run/relay.py", ("relay",), "waits for the exporting process"),
    ("run/describing.py", ("await_description",), "waits for the description"),
    ("_internal/workers.py", ("wait", "result"), "waits for reference and runner"),
    ("validation/arrays.py", ("await_arrays",), "waits for the reference"),
    ("validation/arrays.py", (), "arrays to and from files"),
    ("validation/weights.py", (), "hashes of weights"),
    ("validation/judge.py", (), "comparison"),
    ("validation/sessions.py", ("__init__",), "session of the runtime"),
    ("validation/sessions.py", ("run",), "artifact on all probes"),
    ("validation/reference/worker.py", ("answer_probes",), "model on all probes"),
    ("backends/onnx/capture.py", (), "capture"),
    ("backends/onnx/lowering.py", (), "lowering to ONNX"),
    ("backends/onnx/passes.py", (), "simplification"),
    ("backends/onnx/folding.py", (), "simplification"),
    ("backends/onnx/skeleton.py", (), "simplification"),
    ("backends/onnx/writer.py", (), "writing"),
    ("run/describing.py", ("run",), "description of the model"),
    ("hfexport/modeling/", (), "description of the model"),
    ("manifest/", (), "manifest"),
)
"""Part of the path of a file, names of its functions (none: all), and the stage of samples that are in them."""

CALLERS = ("capture",)
"""Stages that include all functions they call: a capture runs the model, whose frames count as another stage elsewhere."""


def stage_of(frame: FrameType | None) -> str:
    """Return the stage of a stack: that of the innermost frame with a rule, or of one of CALLERS around it.

    An import counts as such wherever it is.
    """
    found = ""
    while frame is not None:
        name, function = frame.f_code.co_filename, frame.f_code.co_name
        if not found and name == "<frozen importlib._bootstrap>" and function == "_find_and_load":
            return "imports"
        if "hfexport/" in name:
            for part, functions, stage in RULES:
                if part in name and (not functions or function in functions):
                    if stage in CALLERS:
                        return stage
                    found = found or stage
                    break
        frame = frame.f_back
    return found or "other"


class Sampler:
    """Samples of this process since its start, or since it was forked."""

    def __init__(self, output: int, role: str) -> None:
        self.output, self.role = output, role
        self.start, self.stages = time.time(), {}  # type: float, dict[str, list[float]]
        self.cpu = time.process_time()
        threading.Thread(target=self.sample, args=(threading.main_thread().ident,), daemon=True).start()

    def sample(self, main: int) -> None:
        last = self.start
        while True:
            time.sleep(INTERVAL_S)
            stage, now = stage_of(sys._current_frames().get(main)), time.time()
            seconds, first, _ = self.stages.get(stage, (0.0, last, last))
            self.stages[stage] = [seconds + now - last, first, now]
            last = now

    def write(self) -> None:
        role = next((role for part, role in ROLES if any(part in word for word in sys.argv)), "command line")
        line: dict[str, Any] = {"role": self.role or role, "start": self.start, "end": time.time()}
        line |= {"processor_s": time.process_time() - self.cpu, "stages": dict(self.stages)}
        os.write(self.output, json.dumps(line).encode() + b"\n")


ROLES = (("hfexport.run.isolated", "exporting process"), ("reference.worker", "reference"), ("runner", "runner"))


def watch(path: str) -> None:
    """Sample this process and its forks from now on."""
    output = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    current = [Sampler(output, "")]
    end = os._exit

    def write_and_end(code: int) -> NoReturn:
        current[0].write()
        end(code)

    # Child processes end with this function, which runs no exit handlers.
    os._exit = write_and_end  # type: ignore[assignment]
    os.register_at_fork(after_in_child=lambda: current.__setitem__(0, Sampler(output, "reference")))


if os.environ.get("TZ", "").startswith(MARK):
    watch(os.environ["TZ"].removeprefix(MARK))
