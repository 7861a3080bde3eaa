"""Read a fleet file (models.yaml): every problem is reported at once, with file, line and field."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from hfexport.checkpoint.model_id import HUB_ID
from hfexport.errors import InputsError
from hfexport.run.fleet.model import GROUPS, Search, entry_inputs, takes_list
from hfexport.run.inputs import InputField, Inputs, check_inputs, parsers

__all__ = ["Group", "read_fleet"]

MAX_FILE_BYTES: Final = 2**24

STAND_IN: Final = "owner/name"
"""Model that stands for those of a group while its other inputs are checked."""

_SECRET: Final = "a token has no place in a file; set HF_TOKEN"  # noqa: S105  not a password


@dataclass(frozen=True)
class Group:
    """One entry of a fleet file: one model, or a group of models with the same inputs.

    Attributes:
        place: file and line, for messages.
        key: `model`, `collection`, `search` or `glob`.
        value: its value.
        given: texts of all inputs, those of `defaults` included, by name; with the place and name for messages.
        own: names of the inputs that the entry sets itself.
    """

    place: str
    key: str
    value: str | Search
    given: Mapping[str, tuple[str, str]]
    own: frozenset[str]

    def inputs(self, model: str, output: str) -> Inputs:
        """Return the checked inputs for one model of this entry.

        Raises:
            InputsError: lists all problems.
        """
        given = dict(self.given)
        given["model"] = (f"{self.place}: {self.key}", model)
        given["output"] = (given["output"][0] if "output" in given else f"{self.place}: output", output)
        wants_pr = given.get("create-pr", ("", ""))[1].lower() == "true"
        if wants_pr and "push-to-hub" not in given:
            given["push-to-hub"] = (given["create-pr"][0], "true")
        return check_inputs(given)


@dataclass
class _Reader:
    """State of reading one file: its name, and the problems that were found."""

    name: str
    problems: list[str] = field(default_factory=list)

    def place(self, node: yaml.Node) -> str:
        return f"{self.name}:{node.start_mark.line + 1}"

    def say(self, node: yaml.Node, problem: str) -> None:
        self.problems.append(f"{self.place(node)}: {problem}")


def read_fleet(path: Path) -> tuple[Group, ...]:
    """Read a fleet file.

    Raises:
        InputsError: lists all problems of the file, each with its line.
    """
    reader = _Reader(str(path))
    root = _parse(path, reader)
    if root is None:
        raise InputsError(reader.problems)
    fields = _mapping(root, ("defaults", "models"), "the file", reader)
    if "models" not in fields:
        reader.say(root, "models is missing: list at least one model")
    defaults = {} if "defaults" not in fields else _texts(fields["defaults"], "defaults", reader, ("model",))
    groups = _groups(fields["models"], defaults, reader) if "models" in fields else []
    for group in groups:
        try:
            group.inputs(STAND_IN if group.key != "model" else str(group.value), "hfexport-out/fleet")
        except InputsError as error:
            reader.problems += error.problems
    if reader.problems:
        raise InputsError(list(dict.fromkeys(reader.problems)))
    return tuple(groups)


def _parse(path: Path, reader: _Reader) -> yaml.Node | None:
    """Parse the file into nodes, which know their lines; `None` after a problem."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            reader.problems.append(f"{path}: is larger than {MAX_FILE_BYTES // 2**20} MiB")
            return None
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
    except OSError as error:
        reader.problems.append(f"{path}: cannot be read ({error.strerror}): give the path of a fleet file")
        return None
    except UnicodeDecodeError:
        reader.problems.append(f"{path}: is not UTF-8")
        return None
    except RecursionError:
        reader.problems.append(f"{path}: is nested too deeply")
        return None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        reader.problems.append(f"{path}{line}: is not YAML: {getattr(error, 'problem', None) or 'cannot be parsed'}")
        return None
    if root is None:
        reader.problems.append(f"{path}: is empty: list models")
    return root


def _mapping(node: yaml.Node, known: Sequence[str], what: str, reader: _Reader) -> dict[str, yaml.Node]:
    """Return the values of a mapping by key; unknown and repeated keys are problems."""
    if not isinstance(node, yaml.MappingNode):
        reader.say(node, f"{what} must be a mapping (key: value), not {_kind(node)}")
        return {}
    _refuse_repeated(node, reader)
    try:
        yaml.SafeLoader("").flatten_mapping(node)  # `<<: *name`
    except (yaml.YAMLError, RecursionError):
        reader.say(node, f"{what}: << must name a mapping")
    found: dict[str, yaml.Node] = {}
    for key, value in node.value:
        name = str(key.value)
        if name in known:
            found[name] = value
            continue
        if name == "hub-token":
            reader.say(key, f"{name}: {_SECRET}")
            continue
        close = difflib.get_close_matches(name.replace("_", "-"), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"allowed: {', '.join(known)}"
        reader.say(key, f"{name} is not a key of {what}: {hint}")
    return found


def _refuse_repeated(node: yaml.MappingNode, reader: _Reader) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        name = str(key.value)
        if name in seen and name != "<<":
            reader.say(key, f"{name} is given twice")
        seen.add(name)


def _texts(node: yaml.Node, what: str, reader: _Reader, without: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return the inputs in a mapping as texts, by the name of the input; null unsets an input."""
    parts = entry_inputs()
    known = [name for name in parts if name not in without]
    if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null":
        return {}
    return _input_texts(_mapping(node, known, what, reader), parts, reader)


def _input_texts(
    fields: Mapping[str, yaml.Node], parts: Mapping[str, InputField], reader: _Reader
) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for name, value in fields.items():
        part = parts[name]
        text = _text(name, part, value, reader)
        if text is None:
            continue
        if part.name in found:
            reader.say(value, f"{name} is another name of an input that is given as well: give one of them")
        found[part.name] = (f"{reader.place(value)}: {name}", text)
    return found


def _text(name: str, part: InputField, node: yaml.Node, reader: _Reader) -> str | None:
    """Return the value of an input as its text on the command line; `None` after a problem."""
    if isinstance(node, yaml.ScalarNode):
        return "" if node.tag == "tag:yaml.org,2002:null" else str(node.value).strip()
    if not takes_list(part):
        reader.say(node, f"{name} must be one value, not {_kind(node)}")
        return None
    pairs = isinstance(node, yaml.MappingNode)
    items = [one for pair in node.value for one in pair] if pairs else list(node.value)
    if not all(isinstance(one, yaml.ScalarNode) for one in items):
        reader.say(node, f"{name} must be a list of values, not of lists or mappings")
        return None
    words = [str(one.value) for one in items]
    if pairs:
        words = [f"{key}={value}" for key, value in zip(words[::2], words[1::2], strict=True)]
    if not words:
        reader.say(node, f"{name} is an empty list: leave it out")
        return None
    return shlex.join(words) if part.parser is parsers.words else "\n".join(words)


def _groups(node: yaml.Node, defaults: Mapping[str, tuple[str, str]], reader: _Reader) -> list[Group]:
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        reader.say(node, f"models must be a list of at least one entry, not {_kind(node)}")
        return []
    made = (_group(one, defaults, reader) for one in node.value)
    return [group for group in made if group is not None]


def _group(node: yaml.Node, defaults: Mapping[str, tuple[str, str]], reader: _Reader) -> Group | None:
    parts = entry_inputs()
    fields = _mapping(node, [*GROUPS, *parts], "an entry of models", reader)
    if not isinstance(node, yaml.MappingNode):
        return None
    kinds = [name for name in ("model", *GROUPS) if name in fields]
    own = _input_texts({name: one for name, one in fields.items() if name not in kinds}, parts, reader)
    if len(kinds) != 1:
        found = f"has {' and '.join(kinds)}" if kinds else "has none of them"
        reader.say(node, f"an entry needs exactly one of model, {', '.join(GROUPS)}; it {found}")
        return None
    key = kinds[0]
    value = _search(fields[key], reader) if key == "search" else _one_text(key, fields[key], reader)
    if value is None:
        return None
    if key == "model" and isinstance(value, str) and re.search(r"[*?\[]", value) and not Path(value).exists():
        key = "glob"
    given = {name: one for name, one in {**defaults, **own}.items() if one[1]}
    return Group(reader.place(node), key, value, given, frozenset(own))


def _one_text(key: str, node: yaml.Node, reader: _Reader) -> str | None:
    if not isinstance(node, yaml.ScalarNode) or not str(node.value).strip():
        reader.say(node, f"{key} must be one text, not {_kind(node)}")
        return None
    text = str(node.value).strip()
    if key == "collection" and not re.fullmatch(HUB_ID, text):
        reader.say(node, f"collection is {text!r}: must be owner/name, as in the address of the collection")
        return None
    return text


def _search(node: yaml.Node, reader: _Reader) -> Search | None:
    names = Search.__struct_fields__
    fields = _mapping(node, names, "search", reader)
    values: dict[str, Any] = {}
    for name, one in fields.items():
        try:
            value = yaml.SafeLoader("").construct_object(one, deep=True)
        except (yaml.YAMLError, ValueError, RecursionError):
            reader.say(one, f"search: {name} is not a plain value")
            continue
        value = [value] if name == "tags" and isinstance(value, str) else value
        try:
            msgspec.convert({name: value}, Search)
        except msgspec.ValidationError as error:
            reader.say(one, f"search: {name}: {re.sub(r' - at .*', '', str(error)).replace('`', '')}")
            continue
        values[name] = value
    if not isinstance(node, yaml.MappingNode) or len(values) != len(fields):
        return None
    found = msgspec.convert(values, Search)
    if not (found.author or found.tags or found.search):
        reader.say(node, "search needs at least one of author, tags and search")
        return None
    return found


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return repr(str(node.value)[:60]) if node.value else "nothing"
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"
