"""Text of `hfexport --help` and of each command's help, from the inputs and the table of commands."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from hfexport.cli.commands import COMMANDS, Command
from hfexport.export_config.tasks import TASK_NAMES
from hfexport.run.inputs import FLAGS, GROUPS, SHORT, InputField, input_fields

__all__ = ["command_help", "overview"]

_SHORT = {long.removeprefix("--"): option for option, long in SHORT.items()}

_EXIT_CODES = """\
exit codes: 0 done, 1 bug, 2 inputs, 3 checkpoint, 4 unsupported, 5 export, 6 validation,
  7 publishing, 8 Neuron toolchain, 9 Job on the Hub, 130 and 143 interrupted;
  see docs/exit-codes.md"""

_COLUMNS = 100


def overview() -> str:
    """Return the text of `hfexport --help`, at most 100 columns wide."""
    lines = [
        "usage: hfexport [COMMAND] ...",
        "",
        *textwrap.wrap(
            "Export Hugging Face checkpoints to ONNX, TorchScript and Neuron, and prove each artifact equal to its model.",
            _COLUMNS,
        ),
        "",
        "commands:",
    ]
    for command in COMMANDS.values():
        lines += _entry(f"{command.name} {command.argument}", command.summary)
    lines += _entry("completion SHELL", "Print a completion script for bash, zsh or fish.")
    lines += ["", "Most used options of an export (all: hfexport export --help):"]
    for part in input_fields():
        if part.group == "common":
            lines += _input_entry(part, COMMANDS["export"])
    lines += ["", "flags:", *_flags()]
    lines += ["", "examples:", *_examples(COMMANDS["export"]), "", *_EXIT_CODES.splitlines()]
    return "\n".join(lines)


def command_help(command: Command) -> str:
    """Return the text of `hfexport COMMAND --help`, at most 100 columns wide."""
    lines = [
        f"usage: hfexport {command.name} {command.argument} [--INPUT VALUE ...] [--json] [--verbose]",
        "",
        *textwrap.wrap(command.summary, _COLUMNS),
        "",
        "argument:",
        *_entry(command.argument.strip("[]"), command.argument_help),
    ]
    if command.syntax.own:
        lines += ["", "options:", *(line for part in command.syntax.own for line in _input_entry(part, command))]
    for group, heading in GROUPS.items():
        parts = [part for part in input_fields() if part.group == group and part.name in command.takes]
        if parts:
            lines += ["", f"{heading.lower() if heading != 'Neuron' else heading}:"]
            lines += [line for part in parts for line in _input_entry(part, command)]
    lines += ["", "flags:", *_flags()]
    lines += ["", "Every input is also read from the environment: INPUT_MODEL for --model. The command line wins."]
    if "task" in command.takes:
        tasks = textwrap.wrap(", ".join(TASK_NAMES), 96, break_on_hyphens=False)
        lines += ["", "tasks (auto chooses one of them):", *(f"  {line}" for line in tasks)]
    lines += ["", "examples:", *_examples(command), "", *_EXIT_CODES.splitlines()]
    return "\n".join(lines)


def _examples(command: Command) -> Iterator[str]:
    for line, meaning in command.examples.items():
        yield f"  {line}"
        yield f"{'':<6}{meaning}"


def _flags() -> Iterator[str]:
    for name, meaning in FLAGS.items():
        yield from _entry(", ".join([*filter(None, [_SHORT.get(name)]), f"--{name}"]), meaning)


def _input_entry(part: InputField, command: Command) -> list[str]:
    names = [*filter(None, [_SHORT.get(part.name)]), *(f"--{name}" for name in part.names)]
    default = f" [default: {part.default}]" if part.default and part.name not in command.meanings else ""
    return _entry(", ".join(names), command.meanings.get(part.name, part.description) + default)


def _entry(names: str, text: str) -> list[str]:
    first, *rest = textwrap.wrap(text, 76, break_on_hyphens=False)
    named = [f"  {names:<20}  {first}"] if len(names) <= 20 else [f"  {names}", f"{'':<24}{first}"]
    return [*named, *(f"{'':<24}{line}" for line in rest)]
