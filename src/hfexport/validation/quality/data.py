"""Find the data on which variants are measured: the user's, or a small set of texts that ships here."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Final, Literal

from hfexport.errors import InputsError

__all__ = ["IMAGES", "MAX_SAMPLES", "SOUNDS", "SUFFIXES", "Data", "media_in", "read_data"]

MAX_SAMPLES: Final = 256
"""Number of samples that are read from a user's data."""

MAX_BYTES: Final = 2**26
"""Number of bytes of the user's data that are read."""

COLUMNS: Final = ("text", "sentence", "sentence1", "question", "premise", "content", "review", "input")
"""Names of columns that hold texts, in the order in which they are looked for."""

PAIRS: Final = (
    ("question", "context"),
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("query", "passage"),
    ("text", "text_pair"),
)
"""Names of two columns that a model reads together."""

SUFFIXES: Final = (".txt", ".jsonl", ".csv")
"""Endings of files with texts."""

IMAGES: Final = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
SOUNDS: Final = (".wav", ".flac")
"""Endings of files in a folder of images or sounds, in lower case."""

MAX_ENTRIES: Final = 100_000
"""Number of files and folders that are looked at."""


@dataclass(frozen=True)
class Data:
    """Texts, images or sounds, and where they are from.

    Attributes:
        description: name of the data, for reports.
        texts: one text for each sample, or a pair of texts that the model reads together.
        kind: kind of the samples.
        files: images or sounds.
    """

    description: str
    texts: tuple[tuple[str, ...], ...] = ()
    kind: Literal["texts", "images", "sounds"] = "texts"
    files: tuple[Path, ...] = ()


def read_data(path: str | None) -> Data:
    """Read the texts of a file; without one, those that ship with hfexport.

    Args:
        path: `.txt` with a text on each line, or `.jsonl` or `.csv` with a column of texts (`COLUMNS`).

    Raises:
        InputsError: the file cannot be read, or holds no texts.
    """
    if path is None:
        shipped = files("hfexport.validation.quality").joinpath("texts.txt").read_text(encoding="utf-8")
        return Data("shipped texts", tuple((text,) for text in shipped.splitlines()))
    file = Path(path)
    if file.is_dir():
        try:
            kind, found_files = media_in(file)
        except ValueError as error:
            raise InputsError([f"eval-data {path!r}: {error}"]) from error
        return Data(file.name, kind=kind, files=found_files)
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES).decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise InputsError([f"eval-data {path!r} cannot be read: {error.strerror}"]) from error
    lines = content.splitlines()
    try:
        texts = {".txt": _plain, ".jsonl": _objects, ".csv": _rows}[file.suffix.lower()](lines)
    except KeyError:
        raise InputsError([f"eval-data {path!r} is no {', '.join(SUFFIXES)} file and no folder"]) from None
    except ValueError as error:
        raise InputsError([f"eval-data {path!r}: {error}"]) from error
    found = tuple(parts for parts in texts if all(part.strip() for part in parts))[:MAX_SAMPLES]
    if not found:
        raise InputsError([f"eval-data {path!r} holds no texts"])
    return Data(file.name, found)


def media_in(folder: Path) -> tuple[Literal["images", "sounds"], tuple[Path, ...]]:
    """Return the kind of the files in a folder and its subfolders, and the first of them by name; hidden ones are left out.

    Raises:
        ValueError: there are none, both kinds, or too many files to look at.
    """
    entries = list(islice(folder.rglob("[!.]*"), MAX_ENTRIES + 1))
    if len(entries) > MAX_ENTRIES:
        raise ValueError(f"the folder has more than {MAX_ENTRIES} files")
    found = {
        kind: sorted(path for path in entries if path.suffix.lower() in endings and path.is_file())
        for kind, endings in (("images", IMAGES), ("sounds", SOUNDS))
    }
    if all(found.values()):
        raise ValueError("the folder has images and sounds; give one kind")
    if not any(found.values()):
        raise ValueError(f"the folder has no images ({', '.join(IMAGES)}) and no sounds ({', '.join(SOUNDS)})")
    kind: Literal["images", "sounds"] = "images" if found["images"] else "sounds"
    return kind, tuple(found[kind][:MAX_SAMPLES])


def _plain(lines: list[str]) -> list[tuple[str, ...]]:
    return [(line.strip(),) for line in lines]


def _objects(lines: list[str]) -> list[tuple[str, ...]]:
    texts: list[tuple[str, ...]] = []
    for number, line in enumerate(lines[: 4 * MAX_SAMPLES], start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number} is no JSON: {error}") from error
        if isinstance(value, str):
            texts.append((value,))
            continue
        if not isinstance(value, dict):
            raise ValueError(f"line {number} is no object and no string")  # noqa: TRY004  an error in the content
        texts.append(_text_of(value, f"line {number}"))
    return texts


def _rows(lines: list[str]) -> list[tuple[str, ...]]:
    reader = csv.DictReader(lines[: 4 * MAX_SAMPLES + 1])
    return [_text_of(row, f"row {number}") for number, row in enumerate(reader, start=1)]


def _text_of(row: Mapping[str, object], place: str) -> tuple[str, ...]:
    """Return the text of a row: a pair, or that of a known column, or of its only column of text."""
    for pair in PAIRS:
        values = [row.get(name) for name in pair]
        texts = [value for value in values if isinstance(value, str) and value.strip()]
        if len(texts) == len(pair):
            return tuple(texts)
    for name in COLUMNS:
        if isinstance(value := row.get(name), str):
            return (value,)
    texts = [value for value in row.values() if isinstance(value, str)]
    if len(texts) != 1:
        raise ValueError(
            f"{place} has no column {', '.join(COLUMNS[:-1])} or {COLUMNS[-1]}; it has {', '.join(map(str, row))}"
        )
    return (texts[0],)
