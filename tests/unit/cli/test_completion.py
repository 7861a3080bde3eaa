"""Shell completion, as a shell asks for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hfexport.cli import main as cli


def _completions(line: str) -> list[str]:
    words = line.split(" ")
    env = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_HFEXPORT_COMPLETE": "bash_complete"}
    done = subprocess.run([sys.executable, "-m", "hfexport"], env=env, capture_output=True, text=True, check=False)
    return [answer.split(",", 1)[1] for answer in done.stdout.split("\n") if answer]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("hfexport ver", ["verify"]),
        ("hfexport --dt", ["--dtype"]),
        ("hfexport export --dtype fp", ["fp32", "fp16"]),
        ("hfexport --task masked-l", ["masked-lm"]),
        ("hfexport verify out --push", []),
        ("hfexport completion z", ["zsh"]),
    ],
)
def test_what_a_shell_is_offered(line: str, wanted: list[str]) -> None:
    assert _completions(line) == wanted


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0
    assert "_HFEXPORT_COMPLETE" in capsys.readouterr().out


def test_an_unknown_shell_is_named_with_what_is_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "tcsh"]) == 2
    assert "one of bash, zsh, fish" in capsys.readouterr().err
