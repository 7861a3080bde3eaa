"""The inputs: one frozen `Inputs` whose fields are the source of options, `INPUT_*`, action.yml and the README's table.

An input is given as an option (`--batch-size 2`), or as the variable that GitHub's runner makes of a workflow's `with:`
(`INPUT_BATCH-SIZE`: upper-case, hyphens kept). The command line wins, input by input. Of variables, an empty one counts
as unset and surrounding whitespace is dropped. A variable that is no input is left alone, since an enclosing action may
have set it; only one that misspells an input is an error, because the runner passes on what it does not know.

All problems are gathered before any is reported. Standard library only: a wrong input costs no heavy import.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import shlex
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from hfexport.errors import InputsError
from hfexport.hub import HUB_ID
from hfexport.tasks import TASK_NAMES

__all__ = ["FLAGS", "OUTPUTS", "InputField", "Inputs", "given_secrets", "help_text", "input_fields", "parse_inputs"]

FORMATS: Final = ("onnx", "torchscript", "neuron")

OPTIMIZATIONS: Final = ("FLOAT32_TO_FLOAT16",)
"""Names in `torch_neuron.Optimization`."""

OUTPUTS: Final[Mapping[str, str]] = {
    "manifest": "Path of hfexport.json.",
    "output": "Folder that holds the artifacts and the manifest.",
    "onnx": "Path of the ONNX graph; empty if none was made.",
    "torchscript": "Path of the TorchScript file; empty if none was made.",
    "neuron": "Path of the Neuron file; empty if none was made.",
    "max-abs-diff": "Largest absolute difference from the model over all artifacts and probes.",
    "verdict": "passed, incomplete (all that could be checked passed, but for what had to stay open), failed, "
    "not_validated or error.",
    "published": "committed, pull_request, nothing_to_do or dry_run; empty if nothing was to be published.",
    "commit-url": "Address of the commit that holds the artifacts on the Hub.",
    "pr-url": "Address of the pull request.",
}
"""Outputs of the action, with their descriptions."""

FLAGS: Final[Mapping[str, str]] = {
    "json": "Print the manifest on stdout; everything else goes to stderr.",
    "verbose": "With an error, also show the exception behind it.",
    "version": "Show the version and exit.",
    "help": "Show this text and exit.",
}
"""Options of the command line alone; they take no value."""

_SHORT: Final = {"-m": "--model", "-h": "--help"}
_RUNNER_VARIABLES: Final = ("INPUT_ARGS", "INPUT_ENTRYPOINT")
"""Inputs that every container action has; the runner itself reads them."""
_OTHERS_VARIABLES: Final = ("INPUT_GITHUB-TOKEN",)
"""What enclosing actions often have, and what a misspelt input of ours would look like too."""
_MAX_INTEGER: Final = 2**31 - 1
_MAX_SHOWN: Final = 100

Parser = Callable[[str], Any]
"""Turns the text a user gave into a value; raises `ValueError` with what is allowed."""


def _path(value: str) -> str:
    if not value or "\0" in value:
        raise ValueError("must be the path of a folder")
    return value


def _program(value: str) -> str:
    if not value or "\0" in value:
        raise ValueError("must be the path of a program")
    return value


def _folder_inside(value: str) -> str:
    parts = value.strip("/").split("/")
    if value.startswith("/") or "\0" in value or "\\" in value or any(part in ("", ".", "..") for part in parts):
        raise ValueError("must be a path inside the repository, such as text_encoder")
    return "/".join(parts)


def _revision(value: str) -> str:
    """What git allows as the name of a reference, in short (https://git-scm.com/docs/git-check-ref-format)."""
    if not re.fullmatch(r"[^\s~^:?*\[\\\x00-\x1f\x7f]+", value) or ".." in value or value.startswith(("-", "/")):
        raise ValueError("must be a branch, a tag, a commit or refs/pr/N")
    return value


def _push(value: str) -> str | None:
    if value.lower() in ("true", "false"):
        return "true" if _boolean(value) else None
    if not re.fullmatch(HUB_ID, value):
        raise ValueError("must be owner/name, or true for the model's own repository on the Hub")
    return value


def _line(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError("must be one line of text")
    return value


def _secret(value: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]+", value):
        raise ValueError("must be a single word, as the Hub gave it")
    return value


def _class_reference(value: str) -> str:
    path, colon, name = value.rpartition(":")
    if not colon or not path.endswith(".py") or not name.isidentifier():
        raise ValueError("must be a Python file and a class in it: path/file.py:Class")
    if not Path(path).is_file():
        raise ValueError(f"{path} is not a file")
    return value


def _choice(allowed: Sequence[str], also_known_as: Mapping[str, str] | None = None) -> Parser:
    names = {name: name for name in allowed} | dict(also_known_as or {})

    def parse(value: str) -> str:
        if value in allowed:
            return value
        close = difflib.get_close_matches(value.lower(), names, n=1)
        hint = f"did you mean {names[close[0]]}? " if close else ""
        raise ValueError(f"{hint}allowed: {', '.join(allowed)}")

    return parse


def _formats(value: str) -> tuple[str, ...]:
    names = [name.strip() for name in re.split(r"[,\r\n]", value)]
    parse = _choice(FORMATS)
    chosen: dict[str, None] = {}
    for name in filter(None, names):
        try:
            chosen[parse(name)] = None
        except ValueError as error:
            raise ValueError(f"{_quoted(name)} is not a format; {error}, separated by commas or newlines") from None
    if not chosen:
        raise ValueError(f"must name at least one of {', '.join(FORMATS)}")
    return tuple(chosen)


def _boolean(value: str) -> bool:
    """The booleans of YAML 1.2's core schema, as the Action toolkits read them."""
    if value not in ("true", "True", "TRUE", "false", "False", "FALSE"):
        raise ValueError("allowed: true, false")
    return value.lower() == "true"


def _positive_integer(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", value) or not 1 <= int(value) <= _MAX_INTEGER:
        raise ValueError(f"must be a whole number from 1 to {_MAX_INTEGER}")
    return int(value)


def _share(value: str) -> float:
    if not re.fullmatch(r"0|1|0?\.[0-9]{1,9}|1\.0{1,9}", value):
        raise ValueError("must be a number from 0 to 1, such as 0.9")
    return float(value)


def _words(value: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(value))
    except ValueError as error:
        raise ValueError(f"must be words as a shell splits them ({str(error).lower()})") from None
    if not words:
        raise ValueError("must have at least one word")
    return words


def _optimizations(value: str) -> tuple[str, ...]:
    parse = _choice(OPTIMIZATIONS)
    names = [name.strip().upper() for name in re.split(r"[,\r\n]", value) if name.strip()]
    if not names:
        raise ValueError(f"must name at least one of {', '.join(OPTIMIZATIONS)}")
    return tuple(dict.fromkeys(map(parse, names)))


def _tolerance(value: str) -> float:
    written = re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", value)
    if not written or not math.isfinite(float(value)):
        raise ValueError("must be a number of at least 0, such as 1e-5")
    return float(value)


Concern = Literal["artifacts", "source", "place"]


@dataclass(frozen=True)
class InputField:
    """One input, as users meet it.

    Attributes:
        name: in action.yml, and with `--` as an option.
        default: as text; empty if the input is unset unless given.
        description: one or two sentences.
        parser: from text to value.
        aliases: other names for it.
        concerns: `artifacts` if it decides what is made; otherwise where that comes from (`source`) or goes to (`place`).
    """

    name: str
    default: str
    description: str
    parser: Parser
    aliases: tuple[str, ...] = ()
    concerns: Concern = "artifacts"

    @property
    def attribute(self) -> str:
        """Its name in `Inputs`."""
        return self.name.replace("-", "_")

    @property
    def is_secret(self) -> bool:
        """Whether its value must not be shown or written anywhere."""
        return self.parser is _secret

    @property
    def names(self) -> tuple[str, ...]:
        """Its name and its aliases."""
        return (self.name, *self.aliases)

    @property
    def is_boolean(self) -> bool:
        """Whether the bare option means true."""
        return self.parser in (_boolean, _push)


def _input(
    default: str, description: str, parser: Parser, *, aliases: tuple[str, ...] = (), concerns: Concern = "artifacts"
) -> Any:
    return field(
        default=parser(default) if default else None,
        repr=parser is not _secret,
        metadata={
            **{"default": default, "description": description, "parser": parser},
            **{"aliases": aliases, "concerns": concerns},
        },
    )


_TASK = _choice(
    ("auto", *TASK_NAMES),
    # The names that pipelines of transformers and model cards use for the same heads.
    {
        "feature-extraction": "default",
        "fill-mask": "masked-lm",
        "text-generation": "causal-lm-with-past",
        "text-classification": "sequence-classification",
        "text2text-generation": "seq2seq-lm-with-past",
        "automatic-speech-recognition": "speech2seq-lm-with-past",
        "image-to-text": "vision2seq-lm",
    },
)
_DTYPE = _choice(("auto", "fp32", "fp16"), {"float32": "fp32", "float16": "fp16", "float": "fp32", "half": "fp16"})


@dataclass(frozen=True)
class Inputs:
    """What the user asks for; every value is checked. Field names are input names with `_` for `-`."""

    model: str = _input(
        ".",
        "Checkpoint folder, relative to the working directory (on Actions, the workspace), or a model on the Hub: "
        "owner/name.",
        _path,
        concerns="source",
    )
    revision: str = _input(
        "main", "Branch, tag, commit or refs/pr/N of a model on the Hub.", _revision, concerns="source"
    )
    subfolder: str | None = _input(
        "", "Folder inside the model's repository that holds the checkpoint.", _folder_inside
    )
    hub_token: str | None = _input(
        "",
        "Token for the Hub, to publish, and for private and gated models; if unset, HF_TOKEN, a trusted publisher "
        "(with permission id-token: write) or a stored login.",
        _secret,
        concerns="source",
    )
    formats: tuple[str, ...] = _input(
        "onnx,torchscript",
        "Artifacts to make: any of onnx, torchscript, neuron; separated by commas or newlines.",
        _formats,
    )
    task: str = _input(
        "auto",
        "auto (what the checkpoint was trained for), or a feature name of transformers.onnx such as "
        "sequence-classification or causal-lm-with-past.",
        _TASK,
        aliases=("feature",),
    )
    output: str = _input("hfexport-out", "Folder for the artifacts and the manifest.", _path, concerns="place")
    opset: int | None = _input("", "ONNX opset; if unset, the architecture's own.", _positive_integer)
    atol: float | None = _input(
        "",
        "Absolute tolerance of validation; if unset, by dtype and architecture. Given alone, it is all there is.",
        _tolerance,
    )
    rtol: float | None = _input(
        "", "Relative tolerance of validation; if unset, by dtype and architecture, or 0 if atol is given.", _tolerance
    )
    dtype: str = _input("auto", "fp32, fp16, or auto: as the checkpoint, bfloat16 widened to fp32.", _DTYPE)
    layout: Literal["auto", "single"] = _input(
        "auto",
        "Graphs of an encoder-decoder: auto (encoder, decoder and decoder with past, as Optimum loads them) or "
        "single (one graph, as transformers.onnx wrote it).",
        _choice(("auto", "single")),
    )
    external_data: bool = _input(
        "false", "Write ONNX weights to model.onnx_data also below 2 GB: true or false.", _boolean
    )
    batch_size: int = _input(
        "1", "Batch size of a Neuron artifact, and of a TorchScript trace that cannot be shape-free.", _positive_integer
    )
    sequence_length: int = _input(
        "128",
        "Sequence length of a Neuron artifact, and of a TorchScript trace that cannot be shape-free; at most what the "
        "model takes.",
        _positive_integer,
    )
    validate: str = _input(
        "strict", "strict, or off: artifacts are written unproved and the manifest says so.", _choice(("strict", "off"))
    )
    push_to_hub: str | None = _input(
        "",
        "Repository on the Hub to publish to in one commit, owner/name; true: the model's own. If unset, nothing is "
        "published.",
        _push,
        concerns="place",
    )
    branch: str = _input("main", "Branch to publish to; made if it is not there.", _revision, concerns="place")
    create_pr: bool = _input(
        "false", "Publish as a pull request; an open one for the same source is updated.", _boolean, concerns="place"
    )
    private: bool = _input("false", "If the repository has to be made, make it private.", _boolean, concerns="place")
    commit_message: str | None = _input(
        "", "First line of the commit's message; if unset, it says what was exported.", _line, concerns="place"
    )
    publish_unvalidated: bool = _input(
        "false", "Publish although validate is off, which is refused otherwise.", _boolean, concerns="place"
    )
    dry_run: bool = _input(
        "false", "Say what would be published, file by file, and publish nothing.", _boolean, concerns="place"
    )

    neuron_target: str = _input(
        "inf1", "Chip to compile for: inf1, or inf2 (also for Trn1 and Trn2).", _choice(("inf1", "inf2"))
    )
    neuron_python: str | None = _input(
        "",
        "Python of an environment with the Neuron SDK for the target; if unset, the one that the image carries.",
        _program,
    )
    neuron_compiler_args: tuple[str, ...] | None = _input(
        "", "Arguments for neuron-cc (Inf1) or neuronx-cc (Inf2), as a shell would split them.", _words
    )
    neuron_decoder_length: int | None = _input(
        "",
        "Tokens that a Neuron artifact of an encoder-decoder can write; if unset, sequence-length.",
        _positive_integer,
    )
    neuron_beams: int | None = _input(
        "",
        "Beams for which such an artifact is made; if unset, as the checkpoint's generation config.",
        _positive_integer,
    )
    neuron_dynamic_batch_size: bool = _input(
        "false", "Let the Neuron artifact take any batch, in parts of batch-size: true or false.", _boolean
    )
    neuron_minimum_segment_size: int = _input(
        "2", "Fewer operators than this in a row stay on CPU (Inf1).", _positive_integer
    )
    neuron_fallback: bool = _input(
        "true", "Leave operators that cannot be compiled on CPU, or fail: true or false (Inf1).", _boolean
    )
    neuron_optimizations: tuple[str, ...] | None = _input(
        "", "Optimisations of torch_neuron: FLOAT32_TO_FLOAT16 (Inf1).", _optimizations
    )
    neuron_timeout: int = _input("3600", "Seconds that compiling one graph for Neuron may take.", _positive_integer)
    neuron_min_compiled: float = _input(
        "0.9", "Share of operators that must have been compiled for Neuron, from 0 to 1.", _share
    )
    export_config: str | None = _input(
        "",
        "path/file.py:Class in the workspace: an export config of your own, for an architecture that hfexport does not"
        " know. Its code is run.",
        _class_reference,
    )
    trust_remote_code: bool = _input(
        "false", "Run code that the checkpoint carries (auto_map in config.json): true or false.", _boolean
    )

    def __post_init__(self) -> None:
        """An absolute tolerance given alone is absolute: no relative part is added unasked."""
        if self.atol is not None and self.rtol is None:
            object.__setattr__(self, "rtol", 0.0)


def input_fields() -> tuple[InputField, ...]:
    """Every input in the order of `Inputs`."""
    return tuple(InputField(part.name.replace("_", "-"), **part.metadata) for part in fields(Inputs))


class _Given(NamedTuple):
    written: str  # the option or variable, as the user wrote it
    text: str


def parse_inputs(argv: Sequence[str], env: Mapping[str, str]) -> tuple[Inputs, frozenset[str]]:
    """Inputs from the command line and, for what it leaves out, from `INPUT_*`; and the flags that were given.

    With `--help` or `--version` nothing else is looked at, and the inputs are the defaults.

    Args:
        argv: the command line without the program's name.
        env: the environment.

    Raises:
        InputsError: with every problem found.
    """
    problems: list[str] = []
    options, flags = _read_options(argv, problems)
    if flags & {"help", "version"}:
        return Inputs(), flags
    variables = _read_variables(env, problems)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for part in input_fields():
        given = options.get(part.name) or _asked_for(part, variables.get(part.name, []))
        if given:
            values[part.attribute] = _parse_each(part, given, problems)
            sources[part.attribute] = given[0].written
    problems.extend(_folder_problems(values, sources))
    problems.extend(_publishing_problems(values, sources))
    if problems:
        raise InputsError(problems)
    return Inputs(**values), flags


def _parse_each(part: InputField, given: list[_Given], problems: list[str]) -> Any:
    """The value that was given, perhaps more than once; `None`, which no text means, if there is a problem with it."""
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
    return "a secret" if part.is_secret and given.text else _quoted(given.text)


def given_secrets(argv: Sequence[str], env: Mapping[str, str]) -> tuple[str, ...]:
    """Whatever is given for a secret input, usable or not, so that it can be hidden before anything is printed."""
    options, _ = _read_options(argv, [])
    variables = _read_variables(env, [])
    return tuple(
        given.text
        for part in input_fields()
        if part.is_secret
        for given in (*options.get(part.name, []), *variables.get(part.name, []))
        if given.text
    )


def _publishing_problems(values: Mapping[str, Any], sources: Mapping[str, str]) -> list[str]:
    """What is asked of a push that is not asked for, or of one that must not be."""
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
            f"{sources['push_to_hub']} is true, but model {_quoted(model)} is a folder: "
            "name the repository to publish to, owner/name"
        )
    if target and values.get("validate") == "off" and not values.get("publish_unvalidated"):
        problems.append(
            f"{sources['validate']} is 'off': artifacts that nobody proved are published only with "
            "publish-unvalidated: true"
        )
    return problems


def _folder_problems(values: Mapping[str, Any], sources: Mapping[str, str]) -> list[str]:
    """What is wrong with the output folder: it is not one, or writing to it could replace the checkpoint."""
    defaults = Inputs()
    model, output = values.get("model", defaults.model), values.get("output", defaults.output)
    if model is None or output is None:
        return []  # reported already
    written = f"{sources.get('output', 'the output folder')} is {_quoted(output)}"
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
        return [f"{written}, which holds the checkpoint {_quoted(model)}: {remedy}"]
    return []


def _same_folder(one: Path, other: Path) -> bool:
    """By name, and by what lies there: a file system may ignore case, and a folder may be mounted twice."""
    return one == other or (os.path.lexists(one) and os.path.lexists(other) and one.samefile(other))


def _by_name() -> dict[str, InputField]:
    return {name: part for part in input_fields() for name in part.names}


def _read_variables(env: Mapping[str, str], problems: list[str]) -> dict[str, list[_Given]]:
    """What `INPUT_*` says, by the input's name."""
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
    """Without the default: the runner sets it for an input that was left out, beside an alias that was not."""
    others = [one for one in given if one.text != part.default]
    return others or given


def _read_options(argv: Sequence[str], problems: list[str]) -> tuple[dict[str, list[_Given]], frozenset[str]]:
    """What the command line says, by the input's name, and its flags."""
    by_name = _by_name()
    given: dict[str, list[_Given]] = {}
    flags: set[str] = set()
    words = list(argv)
    while words:
        word = words.pop(0)
        written, equals, value = word.partition("=")
        name = _SHORT.get(written, written).removeprefix("--")
        is_long = written in _SHORT or written.startswith("--")
        if is_long and name in FLAGS:
            if equals:
                problems.append(f"{written} takes no value, but has {_quoted(value)}")
            flags.add(name)
        elif is_long and name in by_name:
            part = by_name[name]
            if not equals and words and not _is_option(words[0]):
                value = words.pop(0)
            elif not equals and part.is_boolean:
                value = "true"
            elif not equals:
                problems.append(f"{written} needs a value")
                continue
            given.setdefault(part.name, []).append(_Given(written, value.strip()))
        elif _is_option(word) and word != "--":
            _unknown_option(written, bool(equals), [*by_name, *FLAGS], words, problems)
        else:
            problems.append(f"unexpected argument {_quoted(word)}: every input has a name, such as --model")
    return given, frozenset(flags)


def _is_option(word: str) -> bool:
    """Whether a word cannot be a value; a negative number can, so that it is named with what is allowed."""
    return word.startswith("-") and not re.match(r"-\.?[0-9]", word)


def _unknown_option(written: str, has_value: bool, known: Iterable[str], words: list[str], problems: list[str]) -> None:
    name = written.lstrip("-").lower().replace("_", "-")
    close = difflib.get_close_matches(name, known, n=1)
    problems.append(f"{written} is not an option: " + (f"did you mean --{close[0]}?" if close else "see --help"))
    if not has_value and words and not _is_option(words[0]):
        words.pop(0)  # most likely its value; one mistake is reported once


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…")


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
    short = {long.removeprefix("--"): option for option, long in _SHORT.items()}
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
