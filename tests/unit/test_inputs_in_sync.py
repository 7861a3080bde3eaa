"""Options, variables, action.yml and the README's table all come from `Inputs`, and say the same."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from hfexport.cli.commands import EXPORT
from hfexport.cli.help import command_help
from hfexport.run.inputs import GROUPS, OUTPUTS, input_fields, parse_inputs

ROOT = Path(__file__).resolve().parent.parent.parent
WRITE_THEM = "run scripts/sync_inputs.py"


def _sync_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sync_inputs", ROOT / "scripts/sync_inputs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_nothing_has_drifted(capsys: pytest.CaptureFixture[str]) -> None:
    code = _sync_script().main(["--check"])
    assert code == 0, f"{WRITE_THEM}:\n{capsys.readouterr().out}"


def test_action_yml_says_what_inputs_says() -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    expected = {}
    for part in input_fields():
        expected[part.name] = {"description": part.description, "required": False, "default": part.default}
        for alias in part.aliases:
            expected[alias] = {"description": f"Another name for {part.name}.", "required": False, "default": ""}
    assert action["inputs"] == expected, WRITE_THEM
    assert action["outputs"] == {name: {"description": text} for name, text in OUTPUTS.items()}, WRITE_THEM
    assert action["runs"]["using"] == "docker"
    assert len(action["description"]) <= 125, "the Marketplace takes no longer one"


def test_what_action_yml_sets_by_default_is_the_defaults() -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    env = {f"INPUT_{name.upper()}": content["default"] for name, content in action["inputs"].items()}
    assert parse_inputs([], env) == parse_inputs([], {})


def test_the_documentation_lists_every_input_with_its_default() -> None:
    text = (ROOT / "docs/inputs.md").read_text(encoding="utf-8")
    tables = text.split("<!-- inputs:start -->")[1].split("<!-- inputs:end -->")[0].strip().splitlines()
    rows = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in tables if row.startswith("| `")]
    found = {row[0].split(" or ")[0].strip("`"): (row[1], row[2].strip(" |`")) for row in rows}
    assert found == {part.name: (part.description, part.default) for part in input_fields()}, WRITE_THEM
    assert [line.removeprefix("### ") for line in tables if line.startswith("#")] == list(GROUPS.values())


def test_help_knows_what_action_yml_knows() -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    assert all(f"--{name}" in command_help(EXPORT) for name in action["inputs"])


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, Path]:
    """The script, on a copy of the files it keeps."""
    script = _sync_script()
    (tmp_path / "docs").mkdir()
    for name in ("docs/inputs.md", "action.yml"):
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.setattr(script, "ROOT", tmp_path)
    return script, tmp_path


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("action.yml", 'default: "128"', 'default: "129"'),
        ("action.yml", "  atol:", "  atoll:"),
        ("action.yml", "  verdict:", "  result:"),
        ("docs/inputs.md", "| `128` |", "| `129` |"),
        ("docs/inputs.md", "| `opset` |", "| `opsets` |"),
    ],
)
def test_the_check_says_no_and_the_script_repairs(
    copy: tuple[ModuleType, Path], capsys: pytest.CaptureFixture[str], name: str, old: str, new: str
) -> None:
    script, folder = copy
    text = (folder / name).read_text(encoding="utf-8")
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1), encoding="utf-8")
    assert script.main(["--check"]) == 1
    assert new in capsys.readouterr().out
    assert script.main([]) == 0
    assert (folder / name).read_text(encoding="utf-8") == text


def test_the_check_says_no_to_missing_files_and_markers(copy: tuple[ModuleType, Path]) -> None:
    script, folder = copy
    (folder / "action.yml").unlink()
    assert script.main(["--check"]) == 1
    (folder / "docs/inputs.md").write_text("no markers\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="inputs:start"):
        script.main(["--check"])
