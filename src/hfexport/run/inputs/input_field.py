"""One input as users meet it: its name, default, description, parser and heading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from hfexport.run.inputs import parsers

__all__ = ["GROUPS", "Concern", "Group", "InputField", "input_field"]

Group = Literal["common", "checkpoint", "artifacts", "validation", "publishing", "neuron"]

GROUPS: Final[Mapping[Group, str]] = {
    "common": "Common",
    "checkpoint": "Checkpoint",
    "artifacts": "Artifacts",
    "validation": "Validation",
    "publishing": "Publishing",
    "neuron": "Neuron",
}
"""Headings under which help and documentation list the inputs, in their order."""

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
        group: heading under which it is listed.
    """

    name: str
    default: str
    description: str
    parser: parsers.Parser
    aliases: tuple[str, ...] = ()
    concerns: Concern = "artifacts"
    group: Group = "artifacts"

    @property
    def attribute(self) -> str:
        """Its name in `Inputs`."""
        return self.name.replace("-", "_")

    @property
    def is_secret(self) -> bool:
        """Whether its value must not be shown or written anywhere."""
        return self.parser is parsers.secret

    @property
    def names(self) -> tuple[str, ...]:
        """Its name and its aliases."""
        return (self.name, *self.aliases)

    @property
    def is_boolean(self) -> bool:
        """Whether the bare option means true."""
        return self.parser in (parsers.boolean, parsers.push)


def input_field(
    default: str,
    description: str,
    parser: parsers.Parser,
    *,
    aliases: tuple[str, ...] = (),
    concerns: Concern = "artifacts",
    group: Group = "artifacts",
) -> Any:
    """Declare an input as a dataclass field whose metadata makes its `InputField`."""
    return field(
        default=parser(default) if default else None,
        repr=parser is not parsers.secret,
        metadata={
            **{"default": default, "description": description, "parser": parser},
            **{"aliases": aliases, "concerns": concerns, "group": group},
        },
    )
