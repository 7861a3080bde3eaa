"""The model card: a section of ours, a few fields, and every other byte as it was."""

from __future__ import annotations

import random

import pytest
import yaml

from hfexport.errors import PublishError
from hfexport.hub.publish.card import END, START, Metadata, updated_card

METADATA = Metadata(("onnx", "hfexport"), "transformers", "org/base")


def _front(card: str) -> dict[str, object]:
    return dict(yaml.safe_load(card.lstrip("\ufeff").replace("\r\n", "\n").split("---\n")[1]))


def _outside(card: str) -> str:
    """Without the section."""
    return card[: card.index(START)] + card[card.index(END) + len(END) :]


def test_no_card_gets_all_of_it() -> None:
    card = updated_card("", "text", METADATA)
    assert _front(card) == {
        **{"tags": ["onnx", "hfexport"], "library_name": "transformers"},
        **{"base_model": "org/base", "base_model_relation": "quantized"},
    }
    assert card.endswith(f"{START}\ntext\n{END}\n")


@pytest.mark.parametrize(
    ("front", "tags"),
    [
        ("license: mit", ["onnx", "hfexport"]),
        ("tags:\n- a\n- b\nlicense: mit", ["a", "b", "onnx", "hfexport"]),
        ("tags:\n  - a # why\n  - 'b c'\n\nlicense: mit", ["a", "b c", "onnx", "hfexport"]),
        ("license: mit\ntags:\n- a", ["a", "onnx", "hfexport"]),
        ("tags: [a, 'b']\nlicense: mit", ["a", "b", "onnx", "hfexport"]),
        ("tags: [\n  a,\n  b,\n]", ["a", "b", "onnx", "hfexport"]),
        ("tags: []", ["onnx", "hfexport"]),
        ("tags:\nlicense: mit", ["onnx", "hfexport"]),
        ("tags:\n- hfexport\n- onnx", ["hfexport", "onnx"]),
        ("# only a comment", ["onnx", "hfexport"]),
        ("", ["onnx", "hfexport"]),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_tags_are_added_in_the_style_of_the_list(front: str, tags: list[str], newline: str) -> None:
    text = (
        f"---\n{front}\n---\n\n# Title\n".replace("\n\n---", "\n---")
        if not front
        else f"---\n{front}\n---\n\n# Title\n"
    )
    card = text.replace("\n", newline)
    updated = updated_card(card, "text", METADATA)
    assert _front(updated)["tags"] == tags
    assert newline == "\n" or "\n" not in updated.replace("\r\n", "")
    if "tags: [" in card:  # a list in one line becomes longer
        updated_lines = updated.replace(", onnx, hfexport]", "]").replace("[onnx, hfexport]", "[]")
    else:
        updated_lines = updated
    lines = iter(updated_lines.split(newline))
    assert all(any(line in found for found in lines) for line in card.split(newline)), "lines were lost or moved"
    assert updated_card(updated, "text", METADATA) == updated


def test_what_the_owner_says_stays() -> None:
    card = "---\nlibrary_name: sentence-transformers\nbase_model: other/one\ntags: onnx\n---\nText"
    front = _front(updated_card(card, "text", METADATA))
    assert front == {"library_name": "sentence-transformers", "base_model": "other/one", "tags": "onnx"}


def test_only_the_section_is_written_anew() -> None:
    generator = random.Random(0)
    for _ in range(200):
        alphabet = "ab \t\n#-*`|é\u2028—"
        before, after = ("".join(generator.choices(alphabet, k=generator.randrange(60))) for _ in range(2))
        card = f"---\nlicense: mit\n---\n{before}{START}\nold\n{END}{after}"
        updated = updated_card(card, "new", Metadata())
        assert _outside(updated) == _outside(card)
        assert f"{START}\nnew\n{END}" in updated


def test_a_card_without_a_section_gets_one_at_its_end() -> None:
    for card in ("# A", "# A\n", "# A\n\n", "---\na: 1\n---\n# A\n"):
        updated = updated_card(card, "new", Metadata())
        assert updated.startswith(card)
        assert updated.endswith(f"\n\n{START}\nnew\n{END}\n")


@pytest.mark.parametrize("card", [START, END, f"{END}\n{START}", f"{START}{END}{START}{END}"])
def test_damaged_markers_are_refused(card: str) -> None:
    with pytest.raises(PublishError, match="hfexport:start"):
        updated_card(card, "text", METADATA)


@pytest.mark.parametrize("front", ["a: [", "- a\n- b", "just words"])
def test_damaged_metadata_is_refused(front: str) -> None:
    with pytest.raises(PublishError, match="metadata"):
        updated_card(f"---\n{front}\n---\n", "text", METADATA)


def test_a_rule_in_the_text_is_no_front_matter() -> None:
    card = "# Title\n---\ntext\n---\n"
    assert card in updated_card(card, "new", METADATA)
