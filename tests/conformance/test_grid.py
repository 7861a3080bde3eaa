"""Every architecture and task goes through the command line to every format, and passes strict validation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hfexport.cli import main
from tiny import PAIRS, VARIANTS, make_checkpoint

CASES: list[tuple[str, str, dict[str, Any]]] = [(model_type, task, {}) for model_type, task in PAIRS] + list(VARIANTS)


def _name(case: tuple[str, str, dict[str, Any]]) -> str:
    model_type, task, changes = case
    return " ".join([model_type, task, *(f"{key}={value}" for key, value in changes.items())])


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_pair(case: tuple[str, str, dict[str, Any]], tmp_path: Path) -> None:
    model_type, task, changes = case
    checkpoint = make_checkpoint(tmp_path / "checkpoint", model_type, task, **changes)
    output = tmp_path / "output"
    assert main(["--model", str(checkpoint), "--task", task, "--output", str(output)]) == 0
    manifest = json.loads((output / "hfexport.json").read_text())
    assert manifest["verdict"] == "passed"
    assert [artifact["format"] for artifact in manifest["artifacts"]] == ["onnx", "torchscript"]
    for artifact in manifest["artifacts"]:
        assert artifact["validation"]["verdict"] == "passed"
        asked = [probe["sizes"] for probe in artifact["validation"]["probes"]]
        assert len(asked) >= 2
        if task.endswith("causal-lm-with-past"):
            assert any(probe["greedy_steps"] == 8 for probe in artifact["validation"]["probes"])
