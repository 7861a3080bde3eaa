"""What is made of the text of a foreign exception."""

from __future__ import annotations

from hfexport.errors import first_line


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_the_first_line_that_is_not_blank_stands_for_an_error() -> None:
    error = ValueError("\n  \n  shapes differ  \nat model.py")
    assert first_line(error) == "shapes differ"
    assert first_line(error, named=True, limit=6) == "ValueError: shapes"


def test_an_error_without_text_has_the_name_of_its_class() -> None:
    assert first_line(ValueError(" \n")) == first_line(ValueError(), named=True) == "ValueError"
    assert first_line(Mute()) == first_line(Mute(), named=True) == "Mute"
