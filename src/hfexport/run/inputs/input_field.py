"""Definition of one input: name, default, description, parser and heading."""

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
"""Headings of inputs in help and documentation, in order."""

Concern = Literal["artifacts", "source", "place"]


@dataclass(frozen=True)
class InputField:
    """Definition of one input.

    Attributes:
        name: name in action.yml, and after `--` as an option.
        default: default as text; empty if there is none.
        description: one or two sentences.
        parser: converts text to the value.
        aliases: alternative names.
        concerns: `artifacts` if the input decides what is made; `source` or `place` if it says where the checkpoint
            comes from or where the export goes.
        group: heading in the documentation.
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
        """Return the attribute's name in `Inputs`."""
        return self.name.replace("-", "_")

    @property
    def is_secret(self) -> bool:
        """Return whether the value must not be shown or stored."""
        return self.parser is parsers.secret

    @property
    def names(self) -> tuple[str, ...]:
        """Return the name and the aliases."""
        return (self.name, *self.aliases)

    @property
    def is_boolean(self) -> bool:
        """Return whether the option without a value means true."""
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
    """Declare an input as a dataclass field whose metadata defines its `InputField`."""
    return field(
        default=parser(default) if default else None,
        repr=parser is not parsers.secret,
        metadata={
            **{"default": default, "description": description, "parser": parser},
            **{"aliases": aliases, "concerns": concerns, "group": group},
        },
    )
