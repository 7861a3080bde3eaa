"""What `--help` shows."""

from __future__ import annotations

import textwrap

from hfexport.export_config.tasks import TASK_NAMES
from hfexport.run.inputs.fields import FLAGS, input_fields
from hfexport.run.inputs.reading import SHORT

__all__ = ["help_text"]


def help_text() -> str:
    """What `--help` prints, at most 100 columns wide."""
    lines = [
        "usage: hfexport [-m MODEL] [--INPUT VALUE ...] [--json] [--verbose]",
        "       hfexport verify FOLDER_OR_REPOSITORY [--revision REVISION] [--model CHECKPOINT]",
        "",
        "Exports a Hugging Face checkpoint to ONNX, TorchScript and Neuron, and proves each artifact.",
        "",
        "inputs (also read from the environment: INPUT_MODEL for --model; the command line wins):",
    ]
    short = {long.removeprefix("--"): option for option, long in SHORT.items()}
    for part in input_fields():
        names = [*filter(None, [short.get(part.name)]), *(f"--{name}" for name in part.names)]
        default = f" [default: {part.default}]" if part.default else ""
        lines += _help_entry(", ".join(names), part.description + default)
    lines += ["", "flags:"]
    for name, description in FLAGS.items():
        lines += _help_entry(", ".join([*filter(None, [short.get(name)]), f"--{name}"]), description)
    tasks = textwrap.wrap(", ".join(TASK_NAMES), 96, break_on_hyphens=False)
    lines += ["", "tasks (auto chooses one of them):", *(f"  {line}" for line in tasks)]
    lines += [
        "",
        "exit codes: 0 done, 1 bug, 2 inputs, 3 checkpoint, 4 unsupported, 5 export, 6 validation, 7 publishing,",
        "  8 Neuron toolchain, 130 and 143 interrupted",
    ]
    return "\n".join(lines)


def _help_entry(names: str, text: str) -> list[str]:
    first, *rest = textwrap.wrap(text, 76, break_on_hyphens=False)
    named = [f"  {names:<20}  {first}"] if len(names) <= 24 else [f"  {names}", f"{'':<24}{first}"]
    return [*named, *(f"{'':<24}{line}" for line in rest)]
