"""Read the texts on which variants are measured: the user's, or a small set in several languages that ships here."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from hfexport.errors import InputsError

__all__ = ["MAX_SAMPLES", "Data", "read_data"]

MAX_SAMPLES: Final = 256
"""Number of samples that are read from a user's data."""

MAX_BYTES: Final = 2**26
"""Number of bytes of the user's data that are read."""

COLUMNS: Final = ("text", "sentence", "sentence1", "question", "premise", "content", "review", "input")
"""Names of columns that hold texts, in the order in which they are looked for."""

SUFFIXES: Final = (".txt", ".jsonl", ".csv")


@dataclass(frozen=True)
class Data:
    """Texts and where they are from.

    Attributes:
        description: name of the data, for reports.
        texts: one text for each sample.
    """

    description: str
    texts: tuple[str, ...]


def read_data(path: str | None) -> Data:
    """Read the texts of a file; without one, those that ship with hfexport.

    Args:
        path: `.txt` with a text on each line, or `.jsonl` or `.csv` with a column of texts (`COLUMNS`).

    Raises:
        InputsError: the file cannot be read, or holds no texts.
    """
    if path is None:
        shipped = files("hfexport.validation.quality").joinpath("texts.txt").read_text(encoding="utf-8")
        return Data("shipped texts", tuple(shipped.splitlines()))
    file = Path(path)
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES).decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise InputsError([f"eval-data {path!r} cannot be read: {error.strerror}"]) from error
    lines = content.splitlines()
    try:
        texts = {".txt": _plain, ".jsonl": _objects, ".csv": _rows}[file.suffix.lower()](lines)
    except KeyError:
        raise InputsError([f"eval-data {path!r} is no {', '.join(SUFFIXES)} file"]) from None
    except ValueError as error:
        raise InputsError([f"eval-data {path!r}: {error}"]) from error
    found = tuple(text.strip() for text in texts if text.strip())[:MAX_SAMPLES]
    if not found:
        raise InputsError([f"eval-data {path!r} holds no texts"])
    return Data(file.name, found)


def _plain(lines: list[str]) -> list[str]:
    return lines


def _objects(lines: list[str]) -> list[str]:
    texts = []
    for number, line in enumerate(lines[: 4 * MAX_SAMPLES], start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number} is no JSON: {error}") from error
        if isinstance(value, str):
            texts.append(value)
            continue
        if not isinstance(value, dict):
            raise ValueError(f"line {number} is no object and no string")  # noqa: TRY004  an error in the content
        texts.append(_text_of(value, f"line {number}"))
    return texts


def _rows(lines: list[str]) -> list[str]:
    reader = csv.DictReader(lines[: 4 * MAX_SAMPLES + 1])
    return [_text_of(row, f"row {number}") for number, row in enumerate(reader, start=1)]


def _text_of(row: dict[str, object], place: str) -> str:
    """Return the text of a row: of a known column, or of its only column of text."""
    for name in COLUMNS:
        if isinstance(value := row.get(name), str):
            return value
    texts = [value for value in row.values() if isinstance(value, str)]
    if len(texts) != 1:
        raise ValueError(
            f"{place} has no column {', '.join(COLUMNS[:-1])} or {COLUMNS[-1]}; it has {', '.join(map(str, row))}"
        )
    return texts[0]
