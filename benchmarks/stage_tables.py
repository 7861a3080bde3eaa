"""The section of docs/performance.md on where the time of an export goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from cases import CASES

__all__ = ["stages_section"]

LEAST_S: Final = 0.05
"""Shorter stages are left out."""

_TEXT: Final = """Wall times of the main thread of each process, from samples of one run; *from* and *to* are seconds since the start of
the command. Imports count as such wherever they happen. Stages under {least:.2f} s are left out.

An interpreter that only runs `import torch, transformers` and looks up `AutoModel` takes **{imports:.2f} s** on this machine: no
exporter that uses both can be faster, and `optimum-cli` imports them once as well. In a cold run the exporting process imports
them, and the reference is its fork. In a warm run only the reference does.

| tried | result |
|---|---|
| reference as a fork of the exporting process instead of an interpreter of its own | of all-MiniLM cold, 7.2 s of processor time instead of 10, and 575 MiB of memory instead of 886 |
| runner beside the reference: each probe as soon as the model has answered it | a warm run of a decoder no longer waits for all answers before it loads the artifact |
| description of the model before its answers | the runner of a warm run starts before the model has run |
| imports that transformers makes without need: `torch._dynamo`, `torch.distributed.tensor`, sympy | left: they are imported from several of its modules, and only stand-ins in `sys.modules` would prevent it; preventing the first of those imports saved 0.15 of 2.2 s of processor time, and the rest came in by others |
| list of transformers' modules, for which it reads all its files twice at each import | left: a stored list saves 0.3 of 2.2 s of processor time, but needs a hook in the import system and a file to be trusted |
| one symbol for each axis while a graph is captured, where `torch.export` makes one for each dimension | results of operators are taken from earlier layers: capturing the llama takes 2.7 s of processor time instead of 4.1, and the graph of bert-base has 12 nodes less |
| no cache of results while a graph is captured (`TORCH_FAKE_TENSOR_DISPATCH_CACHE=0`) | not used: 14 % less for the llama before the line above, 20 % more for bert-base |
| weights hashed while ONNX Runtime loads the file | hidden behind the loading |
| fewer probes, or shorter ones | not tried: validation would prove less |

Why goals are missed:

- **All cases, warm:** two interpreters import torch, transformers and ONNX Runtime and run the model on every probe, eagerly and
  in ONNX Runtime. `optimum-cli` imports once, and validates one shape. Processor time divided by two cores is the least that a
  warm run can take, and most of it is imports and probes, which no cache can replace.
- **Small encoders, cold:** imports are more than half of the wall time. Capturing needs parts of torch and onnxscript that
  `optimum-cli`, which traces, does not import.
- **Decoders, cold:** the exporting process captures on one core while the reference runs on the other; the artifact can only be
  asked when it is written. `torch.export` takes longer for each operator than tracing, since it keeps sizes symbolic.
- **Decoders, cold and warm:** the probe at the longest length and the decoding steps of generation take most of the model's
  time; `optimum-cli` asks one length.
- **bfloat16 llama of 1.1 billion:** its stages are not measured yet.
- **`transformers.onnx`:** it imports torch 1.13 and transformers 4.44, which takes less than half of the time of the versions here,
  traces, and checks one more shape in the same process.
- **Memory:** a small model's peak is that of two interpreters with torch, of which a fork shares a part; in a warm run nothing
  is shared, since the exporting process does not import torch."""


def stages_section(found: Mapping[str, Any]) -> str:
    """Return the section: text, then a table for each case and way."""
    parts = ["## Where the time goes", _TEXT.format(least=LEAST_S, imports=found["imports_s"])]
    titles = {case.name: case.title for case in CASES}
    for case, ways in ((name, found["cases"][name]) for name in titles if name in found["cases"]):
        for way, entry in ways.items():
            parts += [f"### {titles[case]}: {way}", _way(entry, found["imports_s"])]
    return "\n\n".join(parts)


def _way(entry: Mapping[str, Any], imports_s: float) -> str:
    if "failed" in entry:
        return f"Not measured: {entry['failed']}"
    text = (
        f"Without samples {entry['wall_s']:.1f} s, {entry['processor_s']:.1f} s of processor time; imports alone are "
        f"{imports_s / entry['wall_s']:.0%} of the wall time."
    )
    rows = [row for process in entry["processes"] for row in _rows(process)]
    head = "| process | stage | s | from | to |\n|---|---|---|---|---|"
    return "\n".join([text, "", head, *rows])


def _rows(process: Mapping[str, Any]) -> Iterator[str]:
    start, end = process["start_s"], process["end_s"]
    yield f"| **{process['role']}** | {process['processor_s']:.1f} s of processor time | {end - start:.1f} | {start:.1f} | {end:.1f} |"
    for stage in process["stages"]:
        if stage["wall_s"] >= LEAST_S:
            yield f"| | {stage['name']} | {stage['wall_s']:.2f} | {stage['start_s']:.1f} | {stage['end_s']:.1f} |"
