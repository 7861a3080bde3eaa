"""The manifest's schema comes from its types, and says no."""

from __future__ import annotations

import copy
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from hfexport.manifest.entries import SCHEMA_FILE, check_manifest, new_manifest
from hfexport.manifest.model import Manifest
from hfexport.manifest.schema import schema
from hfexport.run.inputs import Inputs, recorded

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "write_schema.py"


def test_the_file_is_what_the_types_say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert json.loads(SCHEMA_FILE.read_text(encoding="utf-8")) == schema(), "run scripts/write_schema.py"
    spec = importlib.util.spec_from_file_location("write_schema", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.main(["--check"]) == 0
    monkeypatch.setattr(script, "FILES", dict.fromkeys(script.FILES, dict))
    assert script.main(["--check"]) == 1
    assert "run scripts/write_schema.py" in capsys.readouterr().err


def _manifest() -> Manifest:
    return new_manifest(recorded(Inputs()), "2026-01-01T00:00:00+00:00")


def test_the_schema_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


def test_a_new_manifest_fits() -> None:
    check_manifest(_manifest())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda manifest: manifest.pop("source"),
        lambda manifest: manifest.update(more=1),
        lambda manifest: manifest["producer"].update(more=1),
        lambda manifest: manifest.update(verdict="good"),
        lambda manifest: manifest.update(verdict="passed"),
        lambda manifest: manifest["machine"].update(cores=-1),
        lambda manifest: manifest.update(files=[{"path": "x", "size_bytes": 1, "sha256": "0"}]),
        lambda manifest: manifest.update(created="yesterday"),
    ],
)
def test_what_does_not_fit_is_refused(spoil: Callable[[dict[str, Any]], Any]) -> None:
    manifest: Any = copy.deepcopy(_manifest())
    spoil(manifest)
    with pytest.raises(jsonschema.ValidationError):
        check_manifest(manifest)
