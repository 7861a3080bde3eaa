"""Turn the entries of a fleet file into models, each with its inputs and its output folder."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hfexport.checkpoint.model_id import is_hub_id
from hfexport.errors import HfexportError, InputsError
from hfexport.hub.client import Hub
from hfexport.hub.groups import collection_models, search_models
from hfexport.run.fleet.file import Group
from hfexport.run.fleet.model import Search
from hfexport.run.inputs import Inputs, input_fields

__all__ = ["Member", "expand", "given_texts"]

CHECKPOINT_FILES = ("config.json", "adapter_config.json", "modules.json")
"""A folder with one of these may be a checkpoint."""


@dataclass(frozen=True)
class Member:
    """One model of a fleet.

    Attributes:
        name: name in tables and messages: the model, with its subfolder and revision.
        place: file and line of its entry.
        inputs: checked inputs.
        texts: inputs as texts, by name, for a command line.
    """

    name: str
    place: str
    inputs: Inputs
    texts: tuple[tuple[str, str], ...]


def expand(
    groups: Sequence[Group], output: str, hub: Callable[[], Hub], note: Callable[[str], None]
) -> tuple[Member, ...]:
    """List every model once: an entry of its own wins over collections, searches and globs, and the first of those.

    Args:
        groups: entries of the file.
        output: folder in which every model without `output` gets a folder of its own.
        hub: creates the client; called only if there is a collection or a search.
        note: called with messages about what was left out.

    Raises:
        InputsError: lists all problems.
        HfexportError: a collection or a search cannot be read.
    """
    problems: list[str] = []
    named = {os.path.normpath(str(group.value)) for group in groups if group.key == "model"}
    members: list[Member] = []
    seen: set[str] = set()
    for group in groups:
        for model in _models(group, hub, note, problems):
            same = os.path.normpath(model)
            if group.key != "model" and (same in named or same in seen):
                note(f"{group.place}: {model} is left to its own or an earlier entry")
                continue
            seen.add(same)
            try:
                members.append(_member(group, model, output))
            except InputsError as error:
                problems += error.problems
    problems += _shared(members)
    if problems:
        raise InputsError(list(dict.fromkeys(problems)))
    return tuple(members)


def _models(group: Group, hub: Callable[[], Hub], note: Callable[[str], None], problems: list[str]) -> list[str]:
    try:
        if isinstance(group.value, Search):
            wanted = group.value
            found = search_models(hub(), wanted.author, wanted.tags, wanted.search, wanted.limit)
        elif group.key == "collection":
            found = collection_models(hub(), group.value)
        elif group.key == "glob":
            found = _folders(group, note)
        else:
            return [group.value]
    except HfexportError as error:
        message = f"{group.place}: {group.key}: {error.message}"
        raise type(error)(message, remedy=error.remedy).by(error.failed_by) from error
    if not found:
        problems.append(f"{group.place}: {group.key}: no model was found")
    return found


def _folders(group: Group, note: Callable[[str], None]) -> list[str]:
    """Return the folders that a pattern names and that hold a checkpoint, in the order of their names."""
    found = []
    subfolder = group.given.get("subfolder", ("", ""))[1]
    for name in sorted(glob.glob(str(group.value), recursive=True)):  # noqa: PTH207  keeps the user's spelling
        folder = Path(name, subfolder)
        if any((folder / file).is_file() for file in CHECKPOINT_FILES):
            found.append(name.rstrip("/"))
        elif Path(name).is_dir():
            note(f"{group.place}: {name} holds no checkpoint ({', '.join(CHECKPOINT_FILES)})")
    return found


def _member(group: Group, model: str, output: str) -> Member:
    subfolder, revision = (group.given.get(name, ("", ""))[1] for name in ("subfolder", "revision"))
    name = "/".join(filter(None, (model, subfolder)))
    if revision and revision != "main":
        name += f"@{revision}"
    if group.key == "model" and "output" in group.own:
        folder = group.given["output"][1]
    else:
        folder = os.path.join(group.given.get("output", ("", output))[1], _slug(name, model))  # noqa: PTH118  as text
    inputs = group.inputs(model, folder)
    return Member(name, group.place, inputs, given_texts(group, model, folder, inputs))


def given_texts(group: Group, model: str, folder: str, inputs: Inputs) -> tuple[tuple[str, str], ...]:
    """Return the inputs of a model as texts, in the order of `Inputs`."""
    texts = {name: text for name, (_, text) in group.given.items()} | {"model": model, "output": folder}
    if inputs.push_to_hub == "true":
        texts["push-to-hub"] = "true"
    return tuple((part.name, texts[part.name]) for part in input_fields() if part.name in texts)


def _slug(name: str, model: str) -> str:
    """Return the name of a model's folder: `owner--name`, or the last two parts of a local path."""
    if not is_hub_id(model):
        resolved = Path(os.path.normpath(name)).parts
        name = "/".join(part for part in resolved if part not in ("/", "..", "."))
        name = "/".join(name.split("/")[-2:]) or Path.cwd().name
    return re.sub(r"[^\w.@+-]+", "-", name.replace("/", "--"))


def _shared(members: Sequence[Member]) -> list[str]:
    """Return problems of models that would write to the same folder, or publish to the same branch."""
    problems = []
    folders: dict[str, Member] = {}
    branches: dict[tuple[str, str, str], Member] = {}
    for member in members:
        folder = os.path.realpath(member.inputs.output)
        if (other := folders.setdefault(folder, member)) is not member:
            problems.append(
                f"{member.place}: output: {member.name} would be written to {member.inputs.output!r}, and so would"
                f" {other.name} of {other.place}: give one of them another output"
            )
            continue
        target = member.inputs.push_to_hub
        if target is None:
            continue
        own = target in ("true", member.inputs.model)
        repository = member.inputs.model if target == "true" else target
        branch = (repository, member.inputs.branch, (member.inputs.subfolder or "") if own else "")
        if (other := branches.setdefault(branch, member)) is not member:
            problems.append(
                f"{member.place}: push-to-hub: {member.name} would replace {other.name} of {other.place} in {repository},"
                f" branch {member.inputs.branch}: publish one of them elsewhere"
            )
    return problems
