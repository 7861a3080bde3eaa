"""Code blocks of the documentation, and the reasons why some are not run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "Block", "blocks", "commands", "pages"]

ROOT = Path(__file__).resolve().parents[2]

_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?```(?P<kind>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        page: name of the page.
        line: number of its first line.
        kind: language; empty if none is named.
        code: content.
        reason: reason why no test runs it; empty if one does.
    """

    page: str
    line: int
    kind: str
    code: str
    reason: str


def pages() -> list[Path]:
    """Every page of the documentation and the README."""
    return [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        line = text[: found.start()].count("\n") + 1
        yield Block(page.name, line, found["kind"], found["code"], (found["reason"] or "").strip())


def commands(block: Block) -> list[list[str]]:
    """The words of each command of a shell block, without comments."""
    lines = block.code.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]
