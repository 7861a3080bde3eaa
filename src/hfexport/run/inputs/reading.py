"""Read inputs from the command line and the environment, and collect all problems."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from hfexport.backends.onnx.variants.names import FORMAT as VARIANT_FORMAT
from hfexport.checkpoint.model_id import HUB_ID
from hfexport.errors import InputsError
from hfexport.export_config import TOLERANCE_CAP
from hfexport.run.inputs.combinations import variant_problems
from hfexport.run.inputs.fields import FLAGS, Inputs, input_fields
from hfexport.run.inputs.input_field import InputField
from hfexport.run.inputs.parsers import quoted

__all__ = ["SHORT", "Parsed", "Syntax", "check_inputs", "given_secrets", "parse_inputs"]

SHORT: Final = {"-m": "--model", "-h": "--help"}


_RUNNER_VARIABLES: Final = ("INPUT_ARGS", "INPUT_ENTRYPOINT")
"""Inputs of every container action, which the runner reads itself."""


_OTHERS_VARIABLES: Final = ("INPUT_GITHUB-TOKEN",)
"""Names that enclosing actions often use, which could be mistaken for misspelt inputs."""


@dataclass(frozen=True)
class Syntax:
    """Allowed arguments and options of one command.

    Attributes:
        command: words before the arguments, for messages.
        inputs: names of the inputs that are options; `None` for all.
        positional: input that the positional argument sets; if it names no input, the argument is returned unchanged.
        needs: problem to report if that argument is missing; empty if it is optional.
        own: options of this command alone, which are not inputs.
        many: whether there may be more than one positional argument.
    """

    command: str = "hfexport"
    inputs: frozenset[str] | None = None
    positional: str = ""
    needs: str = ""
    own: tuple[InputField, ...] = ()
    many: bool = False


class Parsed(NamedTuple):
    """Result of reading a command line.

    Attributes:
        inputs: values from the command line, or else from `INPUT_*`.
        flags: names of the given flags.
        positional: the positional argument, if it sets no input.
        own: values of the command's own options, by name; all of them have a value.
        more: further positional arguments of a command that takes many.
        texts: texts of the given inputs by name, without secrets and without those that are the default.
    """

    inputs: Inputs
    flags: frozenset[str]
    positional: str = ""
    own: Mapping[str, Any] = MappingProxyType({})
    more: tuple[str, ...] = ()
    texts: Mapping[str, str] = MappingProxyType({})


class _Given(NamedTuple):
    written: str  # option or variable as the user wrote it
    text: str


def parse_inputs(argv: Sequence[str], env: Mapping[str, str], syntax: Syntax | None = None) -> Parsed:
    """Read inputs from the command line, or else from `INPUT_*`.

    With `--help` or `--version`, nothing else is read, and all inputs have their defaults.

    Args:
        argv: command line without the program and the command.
        env: the environment.
        syntax: syntax of the command; by default every input is an option, and there is no positional argument.

    Raises:
        InputsError: lists all problems.
    """
    problems: list[str] = []
    syntax = syntax or Syntax()
    options, flags, arguments = _read_options(argv, problems, syntax)
    if flags & {"help", "version"}:
        return Parsed(Inputs(), flags)
    positional = _place_arguments(arguments, options, syntax, problems)
    variables = _read_variables(env, problems)
    own_names = {part.name for part in syntax.own}
    given = {
        part.name: options.get(part.name) or _asked_for(part, variables.get(part.name, []))
        for part in input_fields()
        if part.name not in own_names
    }
    inputs = _checked(given, problems, whole=syntax.inputs is None)
    own = {
        part.name: _parse_each(part, options[part.name], problems) if part.name in options else _default(part)
        for part in syntax.own
    }
    if problems:
        raise InputsError(problems)
    texts = {
        part.name: texts[0].text
        for part in input_fields()
        if not part.is_secret and (texts := given.get(part.name)) and texts[0].text not in ("", part.default)
    }
    return Parsed(inputs, flags, positional, own, tuple(arguments[1:]) if syntax.many else (), texts)


def check_inputs(given: Mapping[str, tuple[str, str]]) -> Inputs:
    """Check inputs that come from another place than the command line, such as a file.

    Args:
        given: by the input's name: the place and name for messages, such as `models.yaml:3: formats`; and the text.

    Raises:
        InputsError: lists all problems.
    """
    problems: list[str] = []
    inputs = _checked({name: [_Given(*one)] for name, one in given.items()}, problems)
    if problems:
        raise InputsError(problems)
    return inputs


def _checked(given: Mapping[str, list[_Given]], problems: list[str], *, whole: bool = True) -> Inputs:
    """Parse the given texts and check their combination; without meaning if there are problems.

    Args:
        given: texts by the input's name.
        problems: list that gets the problems.
        whole: all inputs can be given, so that one may need another.
    """
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for part in input_fields():
        if texts := given.get(part.name):
            values[part.attribute] = _parse_each(part, texts, problems)
            sources[part.attribute] = texts[0].written
    problems.extend(_folder_problems(values, sources))
    problems.extend(_publishing_problems(values, sources))
    problems.extend(_neuron_problems(values, sources))
    if whole:
        problems.extend(variant_problems(values, sources))
    problems.extend(_fixed_problems(values, sources))
    return Inputs() if problems else Inputs(**values)


def _default(part: InputField) -> Any:
    return part.parser(part.default) if part.default else None


def _parse_each(part: InputField, given: list[_Given], problems: list[str]) -> Any:
    """Parse all given values of an input and return the result; `None` (which no text gives) if there is a problem."""
    values = []
    for one in given:
        try:
            values.append(part.parser(one.text))
        except ValueError as error:
            problems.append(f"{one.written} is {_shown(part, one)}: {error}")
    if any(value != values[0] for value in values):
        written = " and ".join(f"{one.written} {_shown(part, one)}" for one in given)
        problems.append(f"{written} contradict each other: give one of them")
        return None
    return values[0] if values else None


def _shown(part: InputField, given: _Given) -> str:
    return "a secret" if part.is_secret and given.text else quoted(given.text)


def given_secrets(argv: Sequence[str], env: Mapping[str, str]) -> tuple[str, ...]:
    """Return all values given for secret inputs, valid or not, so that they can be hidden before any output."""
    options, _, _ = _read_options(argv, [], Syntax())
    variables = _read_variables(env, [])
    return tuple(
        given.text
        for part in input_fields()
        if part.is_secret
        for given in (*options.get(part.name, []), *variables.get(part.name, []))
        if given.text
    )


def _publishing_problems(values: Mapping[str, Any], sources: Mapping[str, str]) -> list[str]:
    """Return problems of options for publishing: given without `push`, or in conflict with it."""
    problems = []
    target = values.get("push_to_hub")
    if not target and "push_to_hub" not in values:
        problems += [
            f"{sources[name]} means nothing without push-to-hub: say where to publish"
            for name in ("create_pr", "private", "dry_run", "publish_unvalidated")
            if values.get(name)
        ]
    model = values.get("model", Inputs().model)
    if target == "true" and model is not None and (not re.fullmatch(HUB_ID, model) or Path(model).exists()):
        problems.append(
            f"{sources['push_to_hub']} is true, but model {quoted(model)} is a folder: "
            "name the repository to publish to, owner/name"
        )
    if target and values.get("validate") == "off" and not values.get("publish_unvalidated"):
        problems.append(
            f"{sources['validate']} is 'off': artifacts that were not validated are published only with "
            "publish-unvalidated: true"
        )
    if target and not values.get("publish_unvalidated"):
        problems += [
            f"{sources[name]} is {values[name]:g}: artifacts held to a tolerance above {TOLERANCE_CAP:g} are published only "
            "with publish-unvalidated: true"
            for name in ("atol", "rtol")
            if (values.get(name) or 0.0) > TOLERANCE_CAP
        ]
    return problems


def _neuron_problems(values: Mapping[str, Any], sources: Mapping[str, str]) -> list[str]:
    """Return problems of options for the Inf1 SDK that are given for the other SDK."""
    if values.get("neuron_target") != "inf2":
        return []
    defaults = Inputs()
    return [
        f"{sources[name]} is for Inf1 alone, but {sources['neuron_target']} is inf2: leave it out"
        for name in ("neuron_minimum_segment_size", "neuron_fallback", "neuron_optimizations")
        if values.get(name, getattr(defaults, name)) != getattr(defaults, name)
    ]


def _fixed_problems(values: Mapping[str, Any], sources: Mapping[str, str]) -> list[str]:
    """Return problems of fixed sizes and targets: without ONNX, or sizes with variants, measured at any length."""
    formats = values.get("formats", Inputs().formats)
    problems = []
    if formats is not None and VARIANT_FORMAT not in formats:
        problems += [
            f"{sources[name]} means nothing without format onnx: add it to {sources['formats']}"
            for name in ("fixed", "target")
            if values.get(name)
        ]
    if values.get("fixed") and values.get("variants"):
        problems.append(
            f"{sources['fixed']} and {sources['variants']} exclude each other: variants are measured on texts of any length"
        )
    return problems


def _folder_problems(values: Mapping[str, Any], sources: Mapping[str, str]) -> list[str]:
    """Return problems of the output folder: it is not a folder, or writing to it could replace the checkpoint."""
    defaults = Inputs()
    model, output = values.get("model", defaults.model), values.get("output", defaults.output)
    if model is None or output is None:
        return []  # already reported
    written = f"{sources.get('output', 'the output folder')} is {quoted(output)}"
    remedy = f"choose another one, such as {defaults.output}"
    model_path, output_path = Path(os.path.realpath(model)), Path(os.path.realpath(output))
    existing = output_path
    while not os.path.lexists(existing):
        existing = existing.parent
    if not existing.is_dir():
        return [f"{written}: {existing} is a file, not a folder"]
    if _same_folder(model_path, output_path):
        return [f"{written}, the checkpoint's own folder: {remedy}"]
    if any(_same_folder(parent, output_path) for parent in model_path.parents):
        return [f"{written}, which holds the checkpoint {quoted(model)}: {remedy}"]
    return []


def _same_folder(one: Path, other: Path) -> bool:
    """Compare folders by name and by device and inode: file systems may ignore case or be mounted twice."""
    return one == other or (os.path.lexists(one) and os.path.lexists(other) and one.samefile(other))


def _by_name() -> dict[str, InputField]:
    return {name: part for part in input_fields() for name in part.names}


def _read_variables(env: Mapping[str, str], problems: list[str]) -> dict[str, list[_Given]]:
    """Return the values in `INPUT_*`, by the name of the input."""
    known = {f"INPUT_{name.upper()}": part for name, part in _by_name().items()}
    given: dict[str, list[_Given]] = {}
    for variable, part in known.items():
        if text := env.get(variable, "").strip():
            given.setdefault(part.name, []).append(_Given(variable, text))
    for variable in sorted(env):
        if not variable.startswith("INPUT_") or not env[variable].strip():
            continue
        if variable in known or variable in (*_RUNNER_VARIABLES, *_OTHERS_VARIABLES):
            continue
        names = {name.removeprefix("INPUT_"): name for name in known}
        name = variable.removeprefix("INPUT_").replace("_", "-").replace(" ", "-")
        if close := difflib.get_close_matches(name, names, n=1, cutoff=0.8):
            problems.append(f"{variable} is not an input: did you mean {names[close[0]]}?")
    return given


def _asked_for(part: InputField, given: list[_Given]) -> list[_Given]:
    """Drop default values: the runner sets the default of an input that is given only by an alias."""
    others = [one for one in given if one.text != part.default]
    return others or given


def _read_options(
    argv: Sequence[str], problems: list[str], syntax: Syntax
) -> tuple[dict[str, list[_Given]], frozenset[str], list[str]]:
    """Split a command line into values by input, flags, and positional arguments."""
    by_name = _by_name() | {part.name: part for part in syntax.own}
    given: dict[str, list[_Given]] = {}
    flags: set[str] = set()
    arguments: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        written, equals, value = word.partition("=")
        name = SHORT.get(written, written).removeprefix("--")
        is_long = written in SHORT or written.startswith("--")
        if is_long and name in FLAGS:
            if equals:
                problems.append(f"{written} takes no value, but has {quoted(value)}")
            flags.add(name)
        elif is_long and name in by_name:
            part = by_name[name]
            if syntax.inputs is not None and part.name not in syntax.inputs and part not in syntax.own:
                problems.append(f"{written} is not an option of {syntax.command}: see {syntax.command} --help")
            text = value if equals else _value_of(part, words)
            if text is None:
                problems.append(f"{written} needs a value")
            else:
                given.setdefault(part.name, []).append(_Given(written, text.strip()))
        elif _is_option(word) and word != "--":
            _unknown_option(written, bool(equals), [*by_name, *FLAGS], words, problems)
        elif word == "--":
            arguments += words
            words = []
        else:
            arguments.append(word)
    return given, frozenset(flags), arguments


def _value_of(part: InputField, words: list[str]) -> str | None:
    """Take the value of an option from the following words; `None` if there is none."""
    if words and not _is_option(words[0]):
        return words.pop(0)
    return "true" if part.is_boolean else None


def _place_arguments(
    arguments: Sequence[str], options: dict[str, list[_Given]], syntax: Syntax, problems: list[str]
) -> str:
    """Set the input of the positional argument, or return the argument if it sets none; others are problems."""
    taken = len(arguments) if syntax.many else 1 if syntax.positional else 0
    problems += [
        f"unexpected argument {quoted(word)}: every input has a name, such as --model" for word in arguments[taken:]
    ]
    if not arguments and syntax.needs:
        problems.append(syntax.needs)
    if not arguments or not syntax.positional:
        return ""
    if syntax.positional in _by_name():
        options.setdefault(syntax.positional, []).insert(
            0, _Given(f"argument {syntax.positional}", arguments[0].strip())
        )
        return ""
    return arguments[0]


def _is_option(word: str) -> bool:
    """Return whether a word is an option and not a value.

    A negative number is a value, so that its error is specific.
    """
    return word.startswith("-") and not re.match(r"-\.?[0-9]", word)


def _unknown_option(written: str, has_value: bool, known: Iterable[str], words: list[str], problems: list[str]) -> None:
    name = written.lstrip("-").lower().replace("_", "-")
    close = difflib.get_close_matches(name, known, n=1)
    problems.append(f"{written} is not an option: " + (f"did you mean --{close[0]}?" if close else "see --help"))
    if not has_value and words and not _is_option(words[0]):
        words.pop(0)  # most likely its value; one mistake is reported once
