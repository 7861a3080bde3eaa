"""The report in a real Chromium: no requests, no errors, no barriers, and every figure is shown without scripts.

Node, Playwright and axe-core live in an environment of their own, which `make report-test` makes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hfexport.cli import main as cli
from hfexport.manifest.report import write_report_page
from manifests import HOSTILE, failed_manifest, full_manifest, hostile_manifest
from tiny import make_checkpoint

ENVIRONMENT = Path(__file__).resolve().parents[2] / ".venv-browser"
LOOK = Path(__file__).with_name("look.cjs")


def look(page: Path) -> dict[str, Any]:
    """Open a page in every view; return what was found."""
    node = ENVIRONMENT / "bin" / "node"
    assert node.exists(), f"{node} is missing; `make report-test` makes it"
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert browser is not None, "no Chromium was found (Debian: apt install chromium)"
    env = {**os.environ, "NODE_PATH": str(ENVIRONMENT / "node_modules")}
    result = subprocess.run([node, LOOK, browser, page], capture_output=True, text=True, check=False, env=env)
    assert result.returncode == 0, result.stderr[-4000:]
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def assert_sound(found: dict[str, Any]) -> None:
    assert found["console"] == []
    assert found["requests"] == []
    assert found["barriers"] == {"light": [], "dark": [], "narrow": [], "narrow-dark": []}
    assert all(pixels <= 0 for pixels in found["overflow"].values()), found["overflow"]


def figures(value: Any) -> set[str]:
    """Every number of JSON data as its text."""
    if isinstance(value, dict):
        return set().union(*map(figures, value.values())) if value else set()
    if isinstance(value, list):
        return set().union(*map(figures, value)) if value else set()
    return {json.dumps(value)} if isinstance(value, int | float) and not isinstance(value, bool) else set()


def test_the_report_of_a_real_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "distilbert", "sequence-classification")
    output = tmp_path / "output"
    assert cli.main(["--model", str(checkpoint), "--output", str(output), "--formats", "onnx", "--report"]) == 0
    capsys.readouterr()
    found = look(output / "report.html")
    assert_sound(found)
    manifest = json.loads((output / "hfexport.json").read_text(encoding="utf-8"))
    del manifest["schema_version"]
    assert figures(manifest) <= set(found["values"])
    assert "every artifact answers as the model does" in found["text"]
    assert manifest["artifacts"][0]["files"][0]["sha256"] in found["text"]


def test_the_report_of_many_models_sorts_and_filters(tmp_path: Path) -> None:
    small: Any = full_manifest("org/small")
    small["artifacts"] = small["artifacts"][1:]
    page = write_report_page([full_manifest("org/big"), failed_manifest(), small], tmp_path / "report.html")
    found = look(page)
    assert_sound(found)
    table = found["table"]
    assert table["first"] == ["org/big", "org/failing", "org/small"]
    assert table["bySize"][0] == "org/small"
    assert table["bySizeDescending"][-1] == "org/small"
    assert table["sorted"] == "descending"
    assert table["filtered"] == ["org/failing"]
    assert table["failed"] == ["org/failing"]


def test_hostile_texts_run_nothing(tmp_path: Path) -> None:
    found = look(write_report_page([hostile_manifest(), failed_manifest()], tmp_path / "report.html"))
    assert_sound(found)
    assert found["title"] == "Export of 2 models"
    assert HOSTILE[:60] in found["text"]


def test_a_page_with_a_barrier_a_request_and_an_error_is_refused(tmp_path: Path) -> None:
    page = write_report_page([full_manifest()], tmp_path / "report.html")
    text = page.read_text(encoding="utf-8")
    bad = '<img src="https://example.org/x.png"><p style="color:#ccc;background:#fff">pale</p><p style="width:2000px">wide</p>'
    page.write_text(text.replace("</main>", f"{bad}</main>"), encoding="utf-8")
    found = look(page)
    assert found["console"]
    assert "https://example.org/x.png" in found["requests"]
    assert any("image-alt" in barrier for barrier in found["barriers"]["light"])
    assert any("color-contrast" in barrier for barrier in found["barriers"]["light"])
    assert found["overflow"]["narrow"] > 0
