"""The checks of words in `make check` accept plain English, and report what is misspelt or to be avoided."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OWN = ("--dictionary", "scripts/words_to_avoid.txt")


def _check(path: Path, text: str, *options: str) -> tuple[int, str]:
    path.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "codespell_lib", *options, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("text", "options", "word"),
    [
        ("The artefact is recieved.", (), "recieved"),
        ("Return whatever the graph needs.", OWN, "whatever"),
        ("Utilize the cache.", OWN, "Utilize"),
    ],
)
def test_a_wrong_word_is_reported(text: str, options: tuple[str, ...], word: str, tmp_path: Path) -> None:
    code, said = _check(tmp_path / "page.md", text, *options)
    assert code != 0
    assert f"page.md:1: {word} ==> " in said


@pytest.mark.parametrize("options", [(), OWN], ids=["spelling", "words to avoid"])
def test_plain_words_are_accepted(options: tuple[str, ...], tmp_path: Path) -> None:
    assert _check(tmp_path / "page.md", "Compare two arrays within a tolerance.\n", *options) == (0, "")
