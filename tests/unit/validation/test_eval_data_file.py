"""Texts and folders given as `eval-data`: what is read, and the error for each file that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from hfexport.errors import InputsError
from hfexport.validation.quality import data
from hfexport.validation.quality.data import read_data

FILES: dict[str, tuple[str, bytes, tuple[tuple[str, ...], ...]]] = {
    "lines": ("a.txt", b"one\n\n  two \n", (("one",), ("two",))),
    "byte order mark": ("a.TXT", b"\xef\xbb\xbfone\n", (("one",),)),
    "strings": ("a.jsonl", b'"one"\n\n"two"\n', (("one",), ("two",))),
    "objects": ("a.jsonl", b'{"label": 1, "text": "one"}\n{"label": 0, "text": "two"}\n', (("one",), ("two",))),
    "one column": ("a.csv", b"note\none\n", (("one",),)),
    "pairs": ("a.csv", b"premise,hypothesis\none,two\n", (("one", "two"),)),
    "half a pair": ("a.jsonl", b'{"question": "one", "context": ""}\n', (("one",),)),
}

REFUSED: dict[str, tuple[str, bytes, str]] = {
    "kind": ("a.parquet", b"x", "is no .txt, .jsonl, .csv file and no folder"),
    "empty": ("a.txt", b" \n\n", "holds no texts"),
    "no JSON": ("a.jsonl", b'"one"\n{"text": \n', "line 2 is no JSON"),
    "nested": ("a.jsonl", b"[" * 100_000, "line 1 is no JSON"),
    "number": ("a.jsonl", b"7\n", "line 1 is no object and no string"),
    "columns": ("a.csv", b"left,right\none,two\n", "row 1 has no column text, sentence,"),
}


@pytest.mark.parametrize("case", FILES)
def test_texts_of_a_file(case: str, tmp_path: Path) -> None:
    name, content, texts = FILES[case]
    (tmp_path / name).write_bytes(content)
    found = read_data(str(tmp_path / name))
    assert (found.description, found.kind, found.texts) == (name, "texts", texts)


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_without_texts_is_refused(case: str, tmp_path: Path) -> None:
    name, content, said = REFUSED[case]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputsError) as refused:
        read_data(str(path))
    assert refused.value.exit_code == 2
    assert refused.value.message.startswith(f"eval-data {str(path)!r}")
    assert said in refused.value.message


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputsError, match=r"eval-data '.*none\.txt' cannot be read: No such file or directory"):
        read_data(str(tmp_path / "none.txt"))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("a.md",), "the folder has no images (.png, .jpg"),
        (("a.png", "b.wav"), "the folder has images and sounds; give one kind"),
        (("a.png", "b.png", "c.png", "d.png"), "the folder has more than 3 files"),
    ],
)
def test_a_folder_of_no_one_kind_is_refused(
    names: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "MAX_ENTRIES", 3)
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(InputsError) as refused:
        read_data(str(tmp_path))
    assert said in refused.value.message


def test_a_folder_gives_files_of_one_kind_by_name(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", ".hidden.png", "notes.md"):
        (tmp_path / name).touch()
    found = read_data(str(tmp_path))
    assert (found.kind, [file.name for file in found.files]) == ("images", ["a.jpg", "b.PNG"])
