"""Shell completion with click, generated from the inputs and the table of commands.

Click prints the script that a shell loads and answers the shell's requests. It does not parse hfexport's own command
line: click stops at the first mistake, and hfexport reports all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from hfexport.backends.formats import FORMATS
from hfexport.cli.commands import COMMANDS, EXPORT, Command
from hfexport.errors import InputsError
from hfexport.run.inputs import FLAGS, InputField, input_fields, parsers

__all__ = ["SHELLS", "VARIABLE", "answer", "print_script"]

SHELLS: Final = ("bash", "zsh", "fish")

VARIABLE: Final = "_HFEXPORT_COMPLETE"
"""Environment variable in which a shell requests completions."""


def print_script(words: Sequence[str]) -> int:
    """Print the completion script for the shell named in `words`; return the exit code.

    Raises:
        InputsError: `words` is not the name of one shell.
    """
    if len(words) != 1 or words[0] not in SHELLS:
        raise InputsError([f"completion needs the name of a shell: one of {', '.join(SHELLS)}"])
    return answer(f"{words[0]}_source")


def answer(instruction: str) -> int:
    """Answer a shell's request, such as `bash_complete`, or print its script, such as `bash_source`."""
    from click.shell_completion import shell_complete

    return shell_complete(_program(), {}, "hfexport", VARIABLE, instruction)


def _program() -> Any:
    """Describe hfexport's command line to click."""
    import click

    group = click.Group("hfexport", params=_params(EXPORT), invoke_without_command=True)
    for command in COMMANDS.values():
        argument = click.Argument(["place"], required=False, type=click.Path())
        group.add_command(click.Command(command.name, params=[argument, *_params(command)], help=command.summary))
    shells = click.Argument(["shell"], type=click.Choice(SHELLS))
    group.add_command(click.Command("completion", params=[shells], help="Print a completion script."))
    return group


def _params(command: Command) -> list[Any]:
    import click

    own = {part.name: part for part in command.syntax.own}
    inputs = [part for part in input_fields() if part.name in command.takes and part.name not in own]
    options = [
        click.Option([f"--{name}" for name in part.names], type=_type(part), help=part.description, multiple=True)
        for part in (*own.values(), *inputs)
    ]
    flags = [click.Option([f"--{name}"], is_flag=True, help=FLAGS[name]) for name in FLAGS if name != "help"]
    return [*options, *flags]


def _type(part: InputField) -> Any:
    """Return the click type that completes the values of an input."""
    import click

    if isinstance(part.parser, parsers.Choice):
        return click.Choice(part.parser.allowed)
    if part.parser is parsers.boolean:
        return click.Choice(("true", "false"))
    if part.parser is parsers.formats:
        return click.Choice(tuple(FORMATS))
    return click.Path() if part.parser in (parsers.path, parsers.program, parsers.class_reference) else click.STRING
