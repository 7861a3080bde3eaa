"""What `--help` prints: every command, input and exit code, in lines that fit a terminal."""

from __future__ import annotations

import re

import pytest

from hfexport.cli.commands import COMMANDS
from hfexport.cli.main import main
from hfexport.run.inputs import input_fields

FLAGS = {"help", "json", "verbose", "version"}


def listed(text: str) -> set[str]:
    """The options that stand at the beginning of a line."""
    return set(re.findall(r"^  (?:-\w, )?--([\w-]+)", text, flags=re.MULTILINE))


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(words) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert all(len(line) <= 100 for line in said.out.splitlines())
    return said.out


def test_the_overview_names_every_command_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "--help")
    for name in (*COMMANDS, "completion"):
        assert f"\n  {name} " in text
    assert listed(text) >= {field.name for field in input_fields() if field.group == "common"}
    for code in (*range(10), 130, 143):
        assert f" {code} " in text


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_names_every_input_that_it_takes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, name, "--help")
    assert text.startswith(f"usage: hfexport {name} ")
    own = {field.name for field in COMMANDS[name].syntax.own}
    assert listed(text) - FLAGS == own | {field.name for field in input_fields() if field.name in COMMANDS[name].takes}
