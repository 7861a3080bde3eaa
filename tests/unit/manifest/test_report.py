"""The report: every figure is there, and text from checkpoints stays text."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from hfexport.manifest.entries import check_manifest
from hfexport.manifest.report import report_page, write_report_page
from hfexport.manifest.report.differences import groups_of
from hfexport.manifest.report.formats import compact, percent, seconds, size
from hfexport.manifest.report.printable import printable
from manifests import HOSTILE, failed_manifest, full_manifest, hostile_manifest


class Page(HTMLParser):
    """Elements with their attributes, text, and values of `<data>`."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def values(self) -> set[str]:
        return {str(attributes["value"]) for tag, attributes in self.elements if tag == "data"}

    def tags(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every number and text of JSON data with its path."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}[{index}]")
    else:
        yield path, value


@pytest.mark.parametrize("make", [full_manifest, failed_manifest])
def test_every_figure_and_text_of_the_manifest_is_in_the_page(make: Any) -> None:
    manifest = make()
    check_manifest(manifest)
    page = Page(report_page([manifest]))
    for path, value in leaves(json.loads(json.dumps(manifest))):
        if isinstance(value, bool) or value in (None, "") or path in (".schema_version", ".producer.name"):
            continue
        if isinstance(value, int | float):
            assert json.dumps(value) in page.values, path
        elif value not in page.text and value not in page.values:
            shown = value.replace("_", " ")
            assert shown in page.text, path


def test_the_page_loads_nothing() -> None:
    page = Page(text := report_page([full_manifest(), failed_manifest()]))
    names = {tag for tag, _ in page.elements}
    assert not names & {"img", "iframe", "object", "embed", "audio", "video", "use", "image", "base"}
    assert [attributes.get("href") for attributes in page.tags("link")] == ["data:,"]
    assert all("src" not in attributes for attributes in page.tags("script"))
    assert "@import" not in text
    assert "url(" not in text
    (policy,) = [attributes["content"] for attributes in page.tags("meta") if "http-equiv" in attributes]
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_the_policy_allows_the_script_of_the_page_alone() -> None:
    import base64
    import hashlib

    text = report_page([full_manifest()])
    (script,) = re.findall("<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html.unescape(text)


@pytest.mark.parametrize("count", [1, 2])
def test_hostile_texts_stay_text(count: int) -> None:
    page = Page(text := report_page([hostile_manifest()] * count))
    plain = Page(report_page([full_manifest()] * count))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]
    assert not [tag for tag, attributes in page.elements if any(name.startswith("on") for name in attributes)]
    assert "\x00" not in text
    assert "\u202e" not in text
    assert HOSTILE[:20] in page.text
    assert "{{ 7*7 }}\\u202egnp.exe\\u0000" in page.text


def test_links_of_other_schemes_are_text() -> None:
    manifest = full_manifest()
    assert manifest["publication"] is not None
    assert manifest["provenance"] is not None
    manifest["publication"]["commit_url"] = "javascript:alert(1)"
    manifest["provenance"]["run"] = "data:text/html,x"
    addresses = [attributes["href"] for attributes in Page(report_page([manifest])).tags("a")]
    assert all(address is not None and address.startswith(("#", "https://")) for address in addresses)
    assert "https://huggingface.co/org/model/discussions/7" in addresses


def test_text_that_no_encoding_holds_is_written(tmp_path: Path) -> None:
    manifest = full_manifest("org/\ud800model")
    path = write_report_page([manifest], tmp_path / "report.html")
    assert "org/\\ud800model" in path.read_text(encoding="utf-8")
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_the_worst_verdict_comes_first_and_every_model_has_a_row_and_a_section() -> None:
    page = Page(text := report_page([full_manifest(), failed_manifest(), full_manifest("org/third")]))
    assert "1 failed, 2 incomplete" in page.text
    assert text.index("1 failed") < text.index("<table")
    rows = [attributes["href"] for attributes in page.tags("a") if str(attributes["href"]).count("-") == 1]
    assert rows == ["#model-1", "#model-2", "#model-3"]
    assert [attributes["id"] for attributes in page.tags("section")] == ["model-1", "model-2", "model-3"]


def test_ids_are_unique_and_links_within_the_page_lead_somewhere() -> None:
    page = Page(report_page([full_manifest(), failed_manifest()]))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {str(attributes["href"])[1:] for attributes in page.tags("a") if str(attributes["href"]).startswith("#")}
    assert targets <= set(ids)


def test_every_picture_has_a_text_and_every_header_a_scope() -> None:
    page = Page(report_page([full_manifest(), failed_manifest()]))
    pictures = page.tags("svg")
    assert len(pictures) >= 10
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in pictures)
    assert all(attributes.get("scope") in ("row", "col") for attributes in page.tags("th"))


def test_a_report_is_the_same_every_time() -> None:
    assert report_page([full_manifest()]) == report_page([full_manifest()])


def test_nothing_exported_and_no_manifest_at_all() -> None:
    from hfexport.manifest.entries import new_manifest

    manifest = new_manifest({"model": "org/x"}, "2026-11-28T12:00:00+00:00")
    page = Page(report_page([manifest]))
    assert "org/x" in page.text
    assert "nothing was exported" in page.text
    assert "No manifest was given." in Page(report_page([])).text


def test_fields_that_may_be_absent_are_not_needed() -> None:
    manifest: Any = failed_manifest()
    manifest["error"]["failed_by"] = "network"
    for name in ("variants", "isolation"):
        manifest.pop(name, None)
    del manifest["source"]["unused_tensors"]
    for artifact in manifest["artifacts"]:
        for name in (
            "tolerance_share",
            "loose_tolerance",
            "weights",
            "validated_up_to",
            "unasked_thresholds",
            "left_out",
        ):
            artifact["validation"].pop(name)
        del artifact["details"]["operators"]
    check_manifest(manifest)
    assert "caused by the network" in Page(report_page([manifest])).text


def test_shares_are_computed_where_a_manifest_does_not_record_them() -> None:
    entry: Any = full_manifest()["artifacts"][0]
    output = entry["validation"]["probes"][0]["outputs"][0]
    del output["tolerance_share"]
    output["worst"] = {"index": [0], "artifact": 2.0, "reference": 1.0}
    entry["validation"]["tolerance"] = {"atol": 1.0, "rtol": 1.0}
    assert groups_of(entry)[0].comparisons[0].share == 0.5
    output["distances"] = {"exact": "fp64", "artifact": 3.0, "eager": 1.0, "allowed": 4.0}
    assert groups_of(entry)[0].comparisons[0].share == 0.75
    output |= {"distances": None, "dtype": "int64"}
    assert groups_of(entry)[0].comparisons[0].share == float("inf")
    output |= {"worst": {"index": [0], "artifact": "(1+2j)", "reference": "(1+3j)"}}
    assert groups_of(entry)[0].comparisons[0].share is None


def test_numbers_are_written_for_people() -> None:
    assert [size(value) for value in (0, 999, 1_000, 90_387_606, 2.5e9)] == [
        "0 B",
        "999 B",
        "1 kB",
        "90.4 MB",
        "2.5 GB",
    ]
    assert [seconds(value) for value in (0.0471, 12.345, 600)] == ["47.1 ms", "12.3 s", "10 min"]
    shares = [0.0, 1e-6, 0.0213, 0.999, 1.5, 10.0, float("inf"), float("nan"), None]
    expected = ["0 %", "0.0001 %", "2.1 %", "1e+02 %", "150 %", "10 times", "infinite", "not known", "not known"]
    assert [percent(value) for value in shares] == expected
    assert [compact(value) for value in (None, True, 7, 12_345, 0.000123456, "inf")] == [
        *("-", "yes", "7", "12,345", "0.000123", "inf")
    ]


def test_unprintable_characters_become_escapes() -> None:
    given = {"a\u200b": ["b\x07", {"c": "\ud800 é 日本\n"}], "n": 1}
    assert printable(given) == {"a\\u200b": ["b\\u0007", {"c": "\\ud800 é 日本\n"}], "n": 1}
