"""The fleet file as typed data. `hfexport.run.fleet.schema` derives its JSON schema from these types.

The keys of an entry are the inputs of the action, so that their types follow from `Inputs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, get_type_hints

import msgspec
from msgspec import Meta

from hfexport.run.inputs import InputField, Inputs, input_fields, parsers

__all__ = ["GROUPS", "SCHEMA_FILE", "Defaults", "Entry", "FleetFile", "Search", "entry_inputs", "takes_list"]

SCHEMA_FILE: Final = "models.schema.json"

GROUPS: Final = ("collection", "search", "glob")
"""Keys of an entry that stand for many models."""


class Search(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A search for models on the Hub. At least one of author, tags and search is given.

    Attributes:
        author: user or organisation.
        tags: tags that each model has.
        search: part of the model's name.
        limit: largest number of models; more is an error.
    """

    author: str | None = None
    tags: tuple[str, ...] = ()
    search: str | None = None
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 1000


def entry_inputs() -> dict[str, InputField]:
    """Return the inputs that are keys of a fleet file, by every name; a token has no place in a file."""
    return {name: part for part in input_fields() if not part.is_secret for name in part.names}


def takes_list(part: InputField) -> bool:
    """Return whether an input has several values, so that the file may give it as a list."""
    return "tuple[" in str(get_type_hints(Inputs)[part.attribute])


def _type(part: InputField) -> Any:
    """Return the type of an input's value in a fleet file."""
    if isinstance(part.parser, parsers.Choice):
        names = (*part.parser.allowed, *part.parser.also_known_as)
        return bool | Literal[names] if {"true", "false"} <= set(names) else Literal[names]
    if takes_list(part):
        return str | list[str]
    return next((kind for parser, kind in _TYPES if parser is part.parser), str | int | float)


_TYPES: tuple[tuple[parsers.Parser, Any], ...] = (
    (parsers.boolean, bool),
    (parsers.positive_integer, Annotated[int, Meta(ge=1)]),
    (parsers.tolerance, Annotated[float, Meta(ge=0)]),
    (parsers.share, Annotated[float, Meta(ge=0, le=1)]),
    (parsers.push, bool | str),
)
"""Types of values by the parser of their text; other inputs are texts, which may look like numbers."""


def _fields(without: tuple[str, ...] = ()) -> list[tuple[str, Any, Any]]:
    return [
        (name.replace("-", "_"), Annotated[_type(part) | None, Meta(description=part.description)], None)
        for name, part in entry_inputs().items()
        if name not in without
    ]


def _struct(name: str, fields: list[tuple[str, Any, Any]], text: str) -> type[msgspec.Struct]:
    made = msgspec.defstruct(
        name, fields, kw_only=True, frozen=True, rename="kebab", forbid_unknown_fields=True, module=__name__
    )
    made.__doc__ = text
    return made


def _described(kind: Any, text: str) -> Any:
    return Annotated[kind | None, Meta(description=text)]


_GROUP_FIELDS: Mapping[str, Any] = {
    "collection": _described(str, "A collection on the Hub, owner/name or its full slug: each of its models."),
    "search": _described(Search, "A search on the Hub: each model found."),
    "glob": _described(str, "Local folders, such as models/*: each folder that holds a checkpoint."),
}

Defaults: Final = _struct("Defaults", _fields(("model",)), "Inputs of every entry that does not set them itself.")

Entry: Final = _struct(
    "Entry",
    [*((name, kind, None) for name, kind in _GROUP_FIELDS.items()), *_fields()],
    "One model, or one group of models, with its inputs.",
)


class FleetFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fleet file: models, and the inputs to export each with."""

    # `Entry` and `Defaults` are made from the inputs, so that they are no types for a static checker.
    models: Annotated[list[Entry], Meta(min_length=1)]  # type: ignore[valid-type]
    defaults: Defaults | None = None  # type: ignore[valid-type]
