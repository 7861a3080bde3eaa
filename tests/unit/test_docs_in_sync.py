"""Generated parts of the documentation fit the code, and the check says no when they do not."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def sync() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sync_docs", ROOT / "scripts/sync_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_as_the_code(sync: ModuleType) -> None:
    assert sync.main(["--check"]) == 0


@pytest.mark.parametrize("name", ["FIELDS", "EXIT_CODES"])
def test_a_page_that_differs_is_found(
    name: str, sync: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page: Path = getattr(sync, name)
    changed = tmp_path / page.name
    text = page.read_text(encoding="utf-8").replace("| Validation failed | 6 |", "").replace("`verdict`", "`verdikt`")
    changed.write_text(text, encoding="utf-8")
    monkeypatch.setattr(sync, name, changed)
    assert sync.main(["--check"]) == 1
    assert f"{page.name}: differs" in capsys.readouterr().err
    assert sync.main([]) == 0
    assert sync.main(["--check"]) == 0


def test_every_exit_code_has_its_causes_and_cures(sync: ModuleType) -> None:
    rows = re.findall(
        r"^\| (\d+) \| [^|]+\|[^|]*\| [^|]+ \|$", sync.EXIT_CODES.read_text(encoding="utf-8"), re.MULTILINE
    )
    codes = {kind.exit_code for kind in sync._with_subclasses(sync.HfexportError)}
    assert sorted(map(int, rows)) == sorted({0, *codes, 130, 143})


def test_every_field_of_the_manifest_is_listed(sync: ModuleType) -> None:
    text = sync.manifest_fields()
    for field in ("artifacts", "tolerance_share", "unused_tensors", "worst_cosine", "peak_memory_bytes"):
        assert (f"`{field}`" in text) == (field != "worst_cosine")
    links = set(re.findall(r"\]\(#([\w-]+)\)", text))
    headings = {heading.lower().replace(" ", "-") for heading in re.findall(r"^## (.+)$", text, re.MULTILINE)}
    assert links <= headings
