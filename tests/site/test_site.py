"""The documentation's site: nothing is loaded from elsewhere, and a broken link or anchor stops the build.

`make docs` builds it in `build/site` and makes the environment.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "build/site"
MKDOCS = ROOT / ".venv-docs/bin/mkdocs"


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(
        [MKDOCS, "build", "--strict"], cwd=folder, capture_output=True, text=True, check=False, env=env
    )


def test_every_page_is_in_the_site_and_loads_nothing_from_elsewhere() -> None:
    assert SITE.is_dir(), "`make docs` builds the site"
    for page in (ROOT / "docs").glob("*.md"):
        built = SITE / ("index.html" if page.stem == "index" else f"{page.stem}/index.html")
        text = built.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|iframe|source)\b[^>]*\bsrc="?([^" >]+)', text)
        loaded += re.findall(
            r'<link\b(?=[^>]*\brel="?(?:stylesheet|icon|preload|modulepreload))[^>]*\bhref="?([^" >]+)', text
        )
        assert loaded
        assert not [address for address in loaded if re.match(r"(https?:)?//", address)], page.name


@pytest.mark.parametrize(
    ("added", "complaint"),
    [
        ("[gone](gone.md)\n", "gone.md"),
        ("[gone](inputs.md#no-such-heading)\n", "no-such-heading"),
        ("![gone](images/gone.png)\n", "gone.png"),
    ],
)
def test_a_broken_link_stops_the_build(added: str, complaint: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    page = tmp_path / "docs/index.md"
    page.write_text(page.read_text(encoding="utf-8") + added, encoding="utf-8")
    done = build(tmp_path)
    assert done.returncode != 0
    assert complaint in done.stderr


def test_a_page_that_the_navigation_lacks_stops_the_build(tmp_path: Path) -> None:
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    (tmp_path / "docs/forgotten.md").write_text("# Forgotten\n", encoding="utf-8")
    done = build(tmp_path)
    assert done.returncode != 0
    assert "forgotten.md" in done.stderr
