"""The inputs: one frozen `Inputs` whose fields are the source of options, `INPUT_*`, action.yml and the README's table.

Standard library only, so that a wrong input is reported before anything heavy loads.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hfexport.errors import InputsError
from hfexport.tasks import TASK_NAMES

__all__ = ["FLAGS", "OUTPUTS", "InputField", "Inputs", "help_text", "input_fields", "parse_inputs"]

FORMATS = ("onnx", "torchscript")

Parser = Callable[[str], Any]
"""Turns the text a user gave into a value; raises `ValueError` with what is allowed."""


def _text(value: str) -> str:
    return value


def _formats(value: str) -> tuple[str, ...]:
    names = [name.strip() for name in value.replace("\n", ",").split(",") if name.strip()]
    for name in names:
        _choice(FORMATS)(name)
    if not names:
        raise ValueError(f"must name at least one of {', '.join(FORMATS)}")
    return tuple(dict.fromkeys(names))


def _choice(allowed: Sequence[str]) -> Parser:
    def parse(value: str) -> str:
        if value not in allowed:
            close = difflib.get_close_matches(value, allowed, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(f"{hint}allowed: {', '.join(allowed)}")
        return value

    return parse


def _boolean(value: str) -> bool:
    known = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
    if value not in known:
        raise ValueError("must be true or false")
    return known[value]


def _positive_integer(value: str) -> int:
    if not value.isascii() or not value.isdigit() or int(value) < 1:
        raise ValueError("must be a whole number of at least 1")
    return int(value)


def _tolerance(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise ValueError("must be a number of at least 0, such as 1e-5")
    return number


def _input(default: str, description: str, parser: Parser, *, aliases: tuple[str, ...] = ()) -> Any:
    value = parser(default) if default else None
    return field(
        default=value, metadata={"default": default, "description": description, "parser": parser, "aliases": aliases}
    )


@dataclass(frozen=True)
class Inputs:
    """What the user asks for; every value is checked. Field names are input names with `_` for `-`."""

    model: str = _input(".", "Checkpoint folder, relative to the working directory (on Actions, the workspace).", _text)
    formats: tuple[str, ...] = _input(
        "onnx,torchscript", "Artifacts to make: any of onnx, torchscript; separated by commas or newlines.", _formats
    )
    task: str = _input(
        "auto",
        "auto (what the checkpoint was trained for), or a feature name of transformers.onnx such as "
        "sequence-classification or causal-lm-with-past.",
        _choice(("auto", *TASK_NAMES)),
        aliases=("feature",),
    )
    output: str = _input("hfexport-out", "Folder for the artifacts and the manifest.", _text)
    opset: int | None = _input("", "ONNX opset; if unset, the architecture's own.", _positive_integer)
    atol: float | None = _input(
        "", "Absolute tolerance of validation; if unset, by dtype. Given alone, nothing relative is added.", _tolerance
    )
    rtol: float | None = _input("", "Relative tolerance of validation; if unset, by dtype.", _tolerance)
    dtype: str = _input(
        "auto", "fp32, fp16, or auto: as the checkpoint, bfloat16 widened to fp32.", _choice(("auto", "fp32", "fp16"))
    )
    external_data: bool = _input(
        "false", "Write ONNX weights to model.onnx_data also below 2 GB: true or false.", _boolean
    )
    batch_size: int = _input("1", "Batch size of a TorchScript trace that cannot be shape-free.", _positive_integer)
    sequence_length: int = _input(
        "128", "Sequence length of a TorchScript trace that cannot be shape-free.", _positive_integer
    )
    validate: str = _input(
        "strict", "strict, or off: artifacts are written unproved and the manifest says so.", _choice(("strict", "off"))
    )


OUTPUTS: Mapping[str, str] = {
    "manifest": "Path of hfexport.json.",
    "output": "Folder that holds the artifacts and the manifest.",
    "onnx": "Path of the ONNX graph; empty if none was made.",
    "torchscript": "Path of the TorchScript file; empty if none was made.",
    "max-abs-diff": "Largest absolute difference from the model over all artifacts and probes.",
    "verdict": "passed, failed, not_validated or error.",
}
"""Outputs of the action, with their descriptions."""

FLAGS: Mapping[str, str] = {
    "json": "Print the manifest to stdout.",
    "help": "Show this text and exit.",
    "version": "Show the version and exit.",
}
"""Options of the command line alone; they take no value."""


@dataclass(frozen=True)
class InputField:
    """One input: its name as the user writes it, its default as text, and what it means."""

    name: str
    default: str
    description: str
    aliases: tuple[str, ...]
    parser: Parser

    @property
    def attribute(self) -> str:
        return self.name.replace("-", "_")


def input_fields() -> tuple[InputField, ...]:
    """Every input in the order of `Inputs`."""
    return tuple(
        InputField(
            part.name.replace("_", "-"),
            part.metadata["default"],
            part.metadata["description"],
            part.metadata["aliases"],
            part.metadata["parser"],
        )
        for part in fields(Inputs)
    )


def parse_inputs(argv: Sequence[str], env: Mapping[str, str]) -> tuple[Inputs, frozenset[str]]:
    """Inputs from the command line and, for what it leaves out, from `INPUT_*`; and the flags that were given.

    Variables that are empty count as unset, and unknown `INPUT_*` are left alone: an enclosing action may have set them.

    Raises:
        InputsError: with every problem found.
    """
    problems: list[str] = []
    options, flags = _read_options(argv, problems)
    given: dict[str, tuple[str, str]] = {}
    for part in input_fields():
        names = (part.name, *part.aliases)
        variables = {f"INPUT_{name.upper()}": env.get(f"INPUT_{name.upper()}", "").strip() for name in names}
        found = [(f"--{name}", options[name]) for name in names if name in options]
        found = found or [(name, value) for name, value in variables.items() if value]
        if len({value for _, value in found}) > 1:
            problems.append(" and ".join(f"{name} {value!r}" for name, value in found) + " contradict each other")
        if found:
            given[part.attribute] = found[0]
    values: dict[str, Any] = {}
    for part in input_fields():
        if part.attribute in given:
            source, text = given[part.attribute]
            try:
                values[part.attribute] = part.parser(text)
            except ValueError as error:
                problems.append(f"{source} is {text!r}: {error}")
    inputs = Inputs(**values)
    problems.extend(_overlap(inputs))
    if problems:
        raise InputsError(problems)
    return inputs, flags


def _overlap(inputs: Inputs) -> list[str]:
    model, output = Path(inputs.model).resolve(), Path(inputs.output).resolve()
    if output == model or output in model.parents:
        return [f"output {inputs.output!r} holds the checkpoint {inputs.model!r}: choose another folder"]
    return []


def _read_options(argv: Sequence[str], problems: list[str]) -> tuple[dict[str, str], frozenset[str]]:
    known = [name for part in input_fields() for name in (part.name, *part.aliases)]
    options: dict[str, str] = {}
    flags: set[str] = set()
    words = list(argv)
    while words:
        word = words.pop(0)
        name, equals, value = ({"-m": "--model", "-h": "--help"}.get(word, word)).partition("=")
        if name.startswith("--") and name[2:] in FLAGS and not equals:
            flags.add(name[2:])
        elif name.startswith("--") and name[2:] in known:
            if not equals:
                if not words or words[0].startswith("--"):
                    problems.append(f"{name} needs a value")
                    continue
                value = words.pop(0)
            if name[2:] in options and options[name[2:]] != value:
                problems.append(f"{name} is given twice, as {options[name[2:]]!r} and {value!r}")
            options[name[2:]] = value.strip()
        elif name.startswith("-"):
            close = difflib.get_close_matches(name.lstrip("-"), [*known, *FLAGS], n=1)
            problems.append(f"unknown option {name}" + (f": did you mean --{close[0]}?" if close else "; see --help"))
            if close and not equals and close[0] not in FLAGS and words and not words[0].startswith("-"):
                words.pop(0)
        else:
            problems.append(f"unexpected argument {word!r}: every input has a name, such as --model {word}")
    return options, frozenset(flags)


def help_text() -> str:
    """What `--help` prints."""
    import textwrap

    lines = [
        "usage: hfexport [--INPUT VALUE ...] [--json]",
        "",
        "Exports a Hugging Face checkpoint to ONNX and TorchScript, and proves each artifact equal to the model.",
        "",
        "inputs (also as environment variables, INPUT_MODEL for --model):",
    ]
    for part in input_fields():
        names = ", ".join(f"--{name}" for name in (part.name, *part.aliases))
        text = part.description + (f" Default: {part.default}." if part.default else "")
        lines.extend(_entry(names, text, textwrap.wrap))
    lines += ["", "flags:"]
    for name, description in FLAGS.items():
        lines.extend(_entry(f"--{name}", description, textwrap.wrap))
    lines += ["", "exit codes: 0 done, 1 bug, 2 inputs, 3 checkpoint, 4 unsupported, 5 export, 6 validation"]
    return "\n".join(lines)


def _entry(names: str, text: str, wrap: Callable[..., list[str]]) -> list[str]:
    first, *rest = wrap(text, 80)
    return [f"  {names:<20} {first}", *(f"{'':<23}{line}" for line in rest)]
