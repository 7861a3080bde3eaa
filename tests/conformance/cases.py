"""The cases of conformance: each a tiny checkpoint that goes through the command line to both formats.

`features.json` holds every (model type, feature) of `transformers.onnx` 4.44 and of the guide it was documented in.
"""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hfexport.cli.main import main
from hfexport.export_config import Seq2SeqConfig
from hfexport.export_config.builtin import known_architectures
from hfexport.export_config.tasks import TASKS
from tiny import INFERRED, MISSES, PAIRS, VARIANTS, make_checkpoint

__all__ = ["CASES", "GUIDE", "Case", "attempt", "run"]

FORMATS: Final = ("onnx", "torchscript")


@dataclass(frozen=True)
class Case:
    """One architecture and task, perhaps with config values that change the graph, other graphs, an opset or a dtype."""

    model_type: str
    task: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    layout: str = "auto"
    opset: int | None = None
    miss: bool = False
    """Known not to be exported, and refused with an error that says why."""
    dtype: str = "fp32"
    """Dtype of the checkpoint and of its artifacts."""

    @property
    def is_plain(self) -> bool:
        """Whether it is the pair itself, with nothing changed."""
        return not self.changes and self.layout == "auto" and self.opset is None and self.dtype == "fp32"

    @property
    def formats(self) -> tuple[str, ...]:
        """What is made of it: an opset says nothing of TorchScript, which is split by itself."""
        return FORMATS if self.opset is None and self.layout != "split" else ("onnx",)

    @property
    def name(self) -> str:
        layout = [] if self.layout == "auto" else [f"layout {self.layout}"]
        opset = [] if self.opset is None else [f"opset {self.opset}"]
        dtype = [] if self.dtype == "fp32" else [self.dtype]
        return " ".join([self.model_type, self.task, *layout, *opset, *dtype, *self.said_changes])

    @property
    def said_changes(self) -> list[str]:
        """The changes as `key=value`; of a model within the model only its type."""
        return [
            f"{key}={value.get('model_type', value) if isinstance(value, Mapping) else value}"
            for key, value in self.changes.items()
        ]


def _guide() -> frozenset[tuple[str, str]]:
    features = json.loads(Path(__file__).with_name("features.json").read_text(encoding="utf-8"))
    known = {model_type for model_type, _ in PAIRS}
    # The guide hyphenates model types that transformers writes with underscores.
    spelled = {name: name if name in known else name.replace("-", "_") for name in features}
    return frozenset((spelled[name], task) for name, tasks in features.items() for task in tasks)


GUIDE: Final = _guide()
"""The (model_type, task) pairs of the guide."""

_SINGLE: Final = tuple(
    Case(model_type, task, layout="single")
    for model_type, task in PAIRS
    if issubclass(known_architectures()[model_type], Seq2SeqConfig)
    # One graph of an image and a text is one without a cache.
    and task != "vision2seq-lm-with-past"
    and (TASKS[task].with_past or "seq2seq" in task)
    and not task.startswith("causal-lm")
)
"""Encoder-decoders as one graph, where it is not the same graph as otherwise."""

_SPLIT: Final = tuple(
    Case(case.model_type, case.task, layout="split") for case in _SINGLE if case.task.endswith("2seq-lm-with-past")
)
"""Encoder-decoders whose decoders are files of their own in ONNX as well: the branches of the merged one."""

_MAIN_TASKS: Final = {
    model_type: next((task for task in config.tasks if task.endswith("lm-with-past")), config.tasks[0])
    for model_type, config in known_architectures().items()
}
"""One task of each architecture: with its cache where it has one."""

_OPSETS: Final = tuple(
    Case(model_type, _MAIN_TASKS[model_type], opset=opset)
    for model_type, config in known_architectures().items()
    for opset in config.opsets
)
"""The lowest and the highest opset that each architecture says is proved."""

_HALF: Final = (
    *(Case(model_type, task, dtype="fp16") for model_type, task in _MAIN_TASKS.items()),
    *(Case(model_type, "auto", dtype="fp16") for model_type in INFERRED),
)
"""Every architecture in half precision."""

CASES: Final = (
    *(Case(*pair) for pair in PAIRS),
    *(Case(*variant) for variant in VARIANTS),
    *_SINGLE,
    *_SPLIT,
    *_OPSETS,
    *(Case(model_type, "auto") for model_type in INFERRED),
    *(Case(model_type, "auto", miss=True) for model_type in MISSES),
    *_HALF,
)
"""All that is to be proved: every pair that an export config declares, variants, the other layouts, both ends of the range
of opsets, what is inferred, half precision, and what is refused."""

UNFIT: Final = "the model is not fit for float16"
"""Part of the error for a model whose own float16 outputs are not finite, or far from its float32 outputs."""

REFUSALS: Final = (4, 5)
"""Exit codes of what is not supported, or cannot be made."""


def run(case: Case, folder: Path, *, arguments: tuple[str, ...] = ()) -> dict[str, Any]:
    """Make the checkpoint in `folder`, export it through the command line, and say how it went.

    Returns:
        `passed`; `problem`, empty if it passed; `refusal`, what a miss or a model unfit for float16 is refused with; `seconds` for export and
        validation; `artifacts` from the manifest, each with `format`, `graph`, `fixed_sizes`, `limits`, `max_abs`,
        `share` (the largest difference as a share of the allowed one) and the number of `probes`.
    """
    checkpoint = make_checkpoint(folder / "checkpoint", case.model_type, case.task, dtype=case.dtype, **case.changes)
    output, said = folder / "output", io.StringIO()
    start = time.perf_counter()
    with redirect_stdout(said), redirect_stderr(said):
        code = main(
            [
                "--model",
                str(checkpoint),
                "--task",
                case.task,
                "--layout",
                case.layout,
                "--formats",
                ",".join(case.formats),
                *(() if case.opset is None else ("--opset", str(case.opset))),
                *(() if case.dtype == "fp32" else ("--dtype", case.dtype)),
                "--output",
                str(output),
                *arguments,
            ]
        )
    seconds = round(time.perf_counter() - start, 2)
    manifest = json.loads((output / "hfexport.json").read_text(encoding="utf-8"))
    message = manifest["error"]["message"] if code else ""
    unfit = case.dtype == "fp16" and code in REFUSALS and UNFIT in message
    if case.miss:
        refused = code in REFUSALS and MISSES[case.model_type][1] in message
        problem = "" if refused else f"not the refusal that is known, but exit code {code}: {message}"
    elif unfit:
        problem = ""
    else:
        problem = message if code else _doubt(manifest, case)
    return {
        "passed": not problem,
        "problem": problem,
        "refusal": message if case.miss or unfit else "",
        "seconds": seconds,
        "artifacts": [
            {
                "format": artifact["format"],
                "graph": Path(artifact["path"]).stem,
                "fixed_sizes": artifact["fixed_sizes"],
                "limits": artifact["limits"],
                "max_abs": artifact["validation"]["max_abs_diff"],
                "share": artifact["validation"]["tolerance_share"],
                "probes": len(artifact["validation"]["probes"]),
            }
            for artifact in manifest["artifacts"]
        ],
    }


def _doubt(manifest: Mapping[str, Any], case: Case) -> str:
    """Why exit code 0 proves nothing; empty if it proves what it should."""
    if manifest["verdict"] != "passed":
        return f"exit code 0, but the verdict is {manifest['verdict']}"
    made = tuple(dict.fromkeys(artifact["format"] for artifact in manifest["artifacts"]))
    if made != case.formats:
        return f"made {', '.join(made)}"
    for artifact in manifest["artifacts"]:
        probes = artifact["validation"]["probes"]
        if artifact["validation"]["verdict"] != "passed" or len(probes) < 2:
            return f"{artifact['format']}: {artifact['validation']['verdict']} after {len(probes)} probes"
    onnx = [artifact for artifact in manifest["artifacts"] if artifact["format"] == "onnx"]
    driven = any(probe["greedy_steps"] for artifact in onnx for probe in artifact["validation"]["probes"])
    if case.task.endswith("-lm-with-past") and not driven:
        return "onnx: its cache was never driven"
    return ""


def attempt(case: Case) -> dict[str, Any]:
    """`run` in a folder of its own; a traceback is a failure of the case."""
    with tempfile.TemporaryDirectory(prefix="hfexport-") as folder:
        try:
            return run(case, Path(folder))
        except Exception as error:  # noqa: BLE001  a bug in one case must not hide the results of the others
            return {"passed": False, "problem": f"{type(error).__name__}: {error}", "seconds": 0.0, "artifacts": []}
